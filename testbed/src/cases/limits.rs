//! As many devices as there are IRQ lines, one more, and many more.

use std::fs;

use anyhow::{Result, ensure};

use super::{Case, LONG, SHORT, cases};
use crate::bed::{Bed, Guest};

pub(super) fn cases() -> Vec<Case> {
    let mut all = cases![SHORT;
        devices_on_every_irq_line_work,
        device_beyond_the_last_irq_line_has_the_split_irqchip,
        device_beyond_the_last_irq_line_is_refused_with_its_holders,
    ];
    all.extend(cases![LONG; shares_30_are_written_at_once, share_is_written_by_4_processors_at_once]);
    all
}

/// IRQ lines 5 to 23 of the irqchip in the kernel.
const LINES: usize = 19;
/// Console and root.
const OTHERS: usize = 2;

fn with_shares<'a>(bed: &'a Bed, line: &str, shares: &tempfile::TempDir, count: usize) -> Result<Guest<'a>> {
    let mut guest = bed
        .shell(line)
        .with(["--net", "none", "--vsock", "off", "--tsi-unix", "off"]);
    for number in 0..count {
        let folder = shares.path().join(number.to_string());
        fs::create_dir(&folder)?;
        fs::write(folder.join("name"), format!("share {number}\n"))?;
        guest = guest.with(["-v".to_owned(), format!("{}:/shares/{number}", folder.display())]);
    }
    Ok(guest)
}

fn devices_on_every_irq_line_work(bed: &Bed) -> Result<()> {
    let shares = tempfile::tempdir()?;
    let count = LINES - OTHERS;
    let line = format!(
        "for n in $(seq 0 {}); do cat /shares/$n/name; done; ls /sys/bus/virtio/devices | wc -l",
        count - 1
    );
    let outcome = with_shares(bed, &line, &shares, count)?.run()?;
    let names: String = (0..count).map(|number| format!("share {number}\n")).collect();
    outcome.expect_code(0)?.expect_text(&format!("{names}{LINES}\n"))?;
    Ok(())
}

fn device_beyond_the_last_irq_line_is_refused_with_its_holders(bed: &Bed) -> Result<()> {
    let shares = tempfile::tempdir()?;
    let guest = with_shares(bed, "true", &shares, LINES - OTHERS + 1)?;
    let outcome = guest.with(["--irqchip", "in-kernel"]).run()?;
    outcome.expect_error(&["20", "19", "console"])?;
    ensure!(outcome.stdout.is_empty(), "something was started");
    Ok(())
}

/// The 19th device has line 8 and the 20th line 24; the guest counts the interrupts of each.
fn device_beyond_the_last_irq_line_has_the_split_irqchip(bed: &Bed) -> Result<()> {
    let shares = tempfile::tempdir()?;
    let count = LINES - OTHERS + 1;
    let line = format!(
        "cat /shares/{}/name /shares/{}/name; grep -c IO-APIC.*virtio /proc/interrupts; \
         grep -E '^ *(8|24):.*[1-9].*IO-APIC.*-edge.*virtio' /proc/interrupts | wc -l",
        count - 2,
        count - 1
    );
    let outcome = with_shares(bed, &line, &shares, count)?.run()?;
    let wanted = format!("share {}\nshare {}\n{}\n2\n", count - 2, count - 1, LINES + 1);
    outcome.expect_code(0)?.expect_text(&wanted)?;
    Ok(())
}

fn shares_30_are_written_at_once(bed: &Bed) -> Result<()> {
    const COUNT: usize = 30;
    const EACH: usize = 256 << 10;
    let shares = tempfile::tempdir()?;
    let line = format!(
        "for n in $(seq 0 {}); do (yes $n | head -c {EACH} >/shares/$n/new; sync /shares/$n/new) & done; wait; \
         cat /shares/*/new | wc -c; cat /shares/*/name | wc -l",
        COUNT - 1
    );
    let outcome = with_shares(bed, &line, &shares, COUNT)?.with(["-c", "2"]).run()?;
    outcome
        .expect_code(0)?
        .expect_text(&format!("{}\n{COUNT}\n", COUNT * EACH))?;
    for number in 0..COUNT {
        let written = fs::read(shares.path().join(number.to_string()).join("new"))?;
        let wanted = format!("{number}\n").into_bytes().into_iter().cycle().take(EACH);
        ensure!(
            written.into_iter().eq(wanted),
            "share {number} has other bytes than were written"
        );
    }
    Ok(())
}

/// Each by way of a request queue of its own.
fn share_is_written_by_4_processors_at_once(bed: &Bed) -> Result<()> {
    const EACH: usize = 512 << 10;
    let shares = tempfile::tempdir()?;
    let line = format!(
        "for n in 0 1 2 3; do taskset $(printf %x $((1 << n))) sh -c \
           'yes $0 | head -c {EACH} >/shares/0/from-$0; for i in $(seq 50); do : >/shares/0/$0-$i; done' $n & done; wait; \
         cat /shares/0/from-* | wc -c; ls /shares/0/*-* | wc -l"
    );
    let outcome = with_shares(bed, &line, &shares, 1)?.with(["-c", "4"]).run()?;
    outcome
        .expect_code(0)?
        .expect_text(&format!("{}\n{}\n", 4 * EACH, 4 * 51))?;
    for number in 0..4 {
        let written = fs::read(shares.path().join(format!("0/from-{number}")))?;
        let wanted = format!("{number}\n").into_bytes().into_iter().cycle().take(EACH);
        ensure!(
            written.into_iter().eq(wanted),
            "processor {number} has written other bytes"
        );
    }
    Ok(())
}
