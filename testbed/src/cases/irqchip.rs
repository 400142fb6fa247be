//! Both irqchips with the real kernel: the split one, whose IO-APIC is ours and which it has by default, and KVM's own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Case, LONG, SHORT, cases};
use crate::bed::Bed;
use crate::blob;

pub(super) fn cases() -> Vec<Case> {
    let mut all = cases![SHORT;
        split_irqchip_panic_is_told_from_an_orderly_end,
        split_irqchip_routes_change_only_when_the_guest_programs_them,
        in_kernel_irqchip_panic_is_told_from_an_orderly_end,
        interrupt_costs_no_exit_with_either_irqchip,
    ];
    all.extend(cases![LONG;
        split_irqchip_1_processor_takes_input,
        split_irqchip_4_processors_take_input,
        in_kernel_irqchip_2_processors_take_input,
    ]);
    all
}

/// Each processor in turn takes a part of the input, through the console's interrupts.
fn processors_take_input(bed: &Bed, irqchip: &str, count: usize) -> Result<()> {
    let bytes = blob::bytes(256 << 10);
    let line = format!(
        "nproc >&2; for cpu in $(seq 0 {}); do \
           taskset $(printf %x $((1 << cpu))) dd bs=4096 count=8 iflag=fullblock 2>/dev/null; done; cat",
        count - 1
    );
    let options = ["--irqchip", irqchip, "-c", &count.to_string()];
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
    processors_take_input(bed, "split", 1)
}

fn split_irqchip_4_processors_take_input(bed: &Bed) -> Result<()> {
    processors_take_input(bed, "split", 4)
}

fn in_kernel_irqchip_2_processors_take_input(bed: &Bed) -> Result<()> {
    processors_take_input(bed, "in-kernel", 2)
}

fn split_irqchip_panic_is_told_from_an_orderly_end(bed: &Bed) -> Result<()> {
    panic_is_told_from_an_orderly_end(bed, "split")
}

fn in_kernel_irqchip_panic_is_told_from_an_orderly_end(bed: &Bed) -> Result<()> {
    panic_is_told_from_an_orderly_end(bed, "in-kernel")
}

fn panic_is_told_from_an_orderly_end(bed: &Bed, irqchip: &str) -> Result<()> {
    let irqchip = ["--irqchip", irqchip];
    bed.shell("poweroff -f").with(irqchip).run()?.expect_code(0)?;
    let panic = ["--cmdline-omit", "init=/.tessera/init", "--cmdline", "init=/nope"];
    bed.shell("true")
        .with(irqchip)
        .with(panic)
        .run()?
        .expect_error(&["panic"])?;
    Ok(())
}

/// Ten times the work is ten times the interrupts and not one call more.
fn split_irqchip_routes_change_only_when_the_guest_programs_them(bed: &Bed) -> Result<()> {
    let (few, many) = (split_work(bed, 50)?, split_work(bed, 400)?);
    println!("{}50 files: {few:?}; 400 files: {many:?}", crate::CHECK);
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

/// A driver reads and acknowledges the interrupt status. The first 64 acknowledgements of a device exit.
fn interrupt_costs_no_exit_with_either_irqchip(bed: &Bed) -> Result<()> {
    const DEBUG: &str = "/sys/kernel/debug";
    if !fs::exists(format!("{DEBUG}/kvm"))? {
        let mount = ["mount", "-t", "debugfs", "none", DEBUG];
        let mounted = Command::new("busybox").args(mount).status()?;
        ensure!(mounted.success(), "KVM's counters in {DEBUG} cannot be had");
    }
    let in_kernel = exits_per_interrupt(bed, "in-kernel")?;
    let split = exits_per_interrupt(bed, "split")?;
    println!(
        "{}exits an interrupt: in-kernel {in_kernel:.3?}, split {split:.3?}",
        crate::CHECK
    );
    // The share's requests are an exit each, since the vCPU serves what it notifies of, and some of them need no interrupt.
    // The shell's page faults come to about one more. With an exit for each acknowledgement there would be two for
    // registers, or two more.
    for exits in [in_kernel, split] {
        ensure!(exits.mmio < 1.5, "interrupts exit to the machine's process");
        ensure!(exits.all - exits.mmio - exits.clocks < 1.7, "interrupts exit to KVM");
    }
    Ok(())
}

/// Exits of a machine.
#[derive(Clone, Copy, Debug)]
struct Exits {
    /// To its process, for a register.
    mmio: f64,
    /// To KVM, whatever for.
    all: f64,
    /// Of those, for ticks of the host's clock, which has an interrupt, and of the guest's, which is set with an exit. How
    /// many there are depends on how slow the emulated machine is.
    clocks: f64,
}

/// Interrupts of a guest.
struct Interrupts {
    devices: f64,
    clock: f64,
}

impl Interrupts {
    /// From a line with both.
    fn parse(line: &str) -> Result<Self> {
        let (devices, clock) = line.trim().split_once(' ').context("two counts")?;
        Ok(Self {
            devices: devices.parse()?,
            clock: clock.parse()?,
        })
    }
}

/// What KVM counts between two words that the guest says, by what the guest counts.
fn exits_per_interrupt(bed: &Bed, irqchip: &str) -> Result<Exits> {
    let count = "awk '/virtio/ { sum += $2 } /LOC:/ { clock = $2 } END { print sum, clock }' /proc/interrupts";
    let line = format!(
        "{count}; read word; for n in $(seq 500); do : >/root/exit-$n; done; rm /root/exit-*; {count}; read word"
    );
    let mut command = bed.shell(&line).with(["--irqchip", irqchip]).command();
    // The work comes after the first 64 interrupts of the root share, which the boot has taken.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    let mut output = BufReader::new(child.stdout.take().context("no standard output")?);
    let mut counted = || -> Result<(Exits, Interrupts)> {
        let mut line = String::new();
        output.read_line(&mut line)?;
        let counts = (exits(child.id())?, Interrupts::parse(&line)?);
        writeln!(input, "go on")?;
        Ok(counts)
    };
    let (before, after) = (counted()?, counted()?);
    ensure!(child.wait()?.success(), "the guest has failed");
    let interrupts = after.1.devices - before.1.devices;
    let guests_clock = after.1.clock - before.1.clock;
    Ok(Exits {
        mmio: (after.0.mmio - before.0.mmio) / interrupts,
        all: (after.0.all - before.0.all) / interrupts,
        clocks: (after.0.clocks - before.0.clocks + guests_clock) / interrupts,
    })
}

/// Of the virtual machine of a process, which has one.
fn exits(process: u32) -> Result<Exits> {
    let machines = fs::read_dir("/sys/kernel/debug/kvm")?;
    let its_own = |name: &str| {
        name.split_once('-')
            .is_some_and(|(owner, _)| owner == process.to_string())
    };
    let machine = machines
        .filter_map(Result::ok)
        .find(|entry| its_own(&entry.file_name().to_string_lossy()));
    let counters = machine.context("KVM counts nothing for this machine")?.path();
    let count = |name| -> Result<f64> { Ok(fs::read_to_string(counters.join(name))?.trim().parse()?) };
    Ok(Exits {
        mmio: count("mmio_exits")?,
        all: count("exits")?,
        clocks: count("irq_exits")?,
    })
}
