//! The split irqchip, whose IO-APIC is ours, with the real kernel.

use anyhow::{Context, Result, ensure};

use super::{Case, LONG, SHORT, cases};
use crate::bed::Bed;
use crate::blob;

pub(super) fn cases() -> Vec<Case> {
    let mut all = cases![SHORT;
        split_irqchip_panic_is_told_from_an_orderly_end,
        split_irqchip_routes_change_only_when_the_guest_programs_them,
    ];
    all.extend(cases![LONG;
        split_irqchip_1_processor_takes_input,
        split_irqchip_2_processors_take_input,
        split_irqchip_4_processors_take_input,
    ]);
    all
}

/// Each processor in turn takes a part of the input, through the console's interrupts.
fn split_irqchip_processors_take_input(bed: &Bed, count: usize) -> Result<()> {
    let bytes = blob::bytes(256 << 10);
    let line = format!(
        "nproc >&2; for cpu in $(seq 0 {}); do \
           taskset $(printf %x $((1 << cpu))) dd bs=4096 count=8 iflag=fullblock 2>/dev/null; done; cat",
        count - 1
    );
    let options = ["--irqchip", "split", "-c", &count.to_string()];
    let outcome = bed.shell(&line).with(options).input(bytes.clone()).run()?;
    outcome.expect_code(0)?;
    ensure!(outcome.stdout == bytes, "other bytes came back than went in");
    let processors = count.to_string();
    ensure!(
        outcome.stderr.lines().any(|line| line.trim() == processors),
        "the guest has other processors"
    );
    Ok(())
}

fn split_irqchip_1_processor_takes_input(bed: &Bed) -> Result<()> {
    split_irqchip_processors_take_input(bed, 1)
}

fn split_irqchip_2_processors_take_input(bed: &Bed) -> Result<()> {
    split_irqchip_processors_take_input(bed, 2)
}

fn split_irqchip_4_processors_take_input(bed: &Bed) -> Result<()> {
    split_irqchip_processors_take_input(bed, 4)
}

fn split_irqchip_panic_is_told_from_an_orderly_end(bed: &Bed) -> Result<()> {
    let split = ["--irqchip", "split"];
    bed.shell("poweroff -f").with(split).run()?.expect_code(0)?;
    let panic = ["--cmdline-omit", "init=/.tessera/init", "--cmdline", "init=/nope"];
    bed.shell("true")
        .with(split)
        .with(panic)
        .run()?
        .expect_error(&["panic"])?;
    Ok(())
}

/// Ten times the work is ten times the interrupts and not one call more.
fn split_irqchip_routes_change_only_when_the_guest_programs_them(bed: &Bed) -> Result<()> {
    let (few, many) = (split_work(bed, 100)?, split_work(bed, 1000)?);
    println!("{}100 files: {few:?}; 1000 files: {many:?}", crate::CHECK);
    ensure!(many.interrupts > 5 * few.interrupts, "the work makes no interrupts");
    ensure!(many.route_updates == few.route_updates, "routes change with the work");
    ensure!(many.accesses == few.accesses, "the IO-APIC is accessed with the work");
    Ok(())
}

/// What a guest's work with this many files takes.
#[derive(Debug)]
struct Work {
    /// Of virtio devices, as the guest counts them.
    interrupts: u64,
    /// `KVM_SET_GSI_ROUTING`.
    route_updates: u64,
    /// Exits for the IO-APIC's registers.
    accesses: u64,
}

fn split_work(bed: &Bed, files: usize) -> Result<Work> {
    let line = format!(
        "for n in $(seq {files}); do : >/root/work-$n; done; rm /root/work-*; \
         awk '/virtio/ {{ sum += $2 }} END {{ print sum }}' /proc/interrupts"
    );
    let guest = bed
        .shell(&line)
        .with(["--irqchip", "split"])
        .env("TESSERA_LOG", "debug");
    let outcome = guest.run()?;
    outcome.expect_code(0)?;
    let count = |name: &str| -> Result<u64> {
        let counts = outcome
            .stderr
            .lines()
            .find(|line| line.contains("the split irqchip is done"));
        let rest = counts.and_then(|line| line.split_once(&format!("{name}: ")));
        let digits = rest.map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        Ok(digits.with_context(|| format!("no {name} in the log"))?.parse()?)
    };
    Ok(Work {
        interrupts: outcome.text().trim().parse()?,
        route_updates: count("route_updates")?,
        accesses: count("accesses")?,
    })
}
