//! As many devices as there are IRQ lines, and one more.

use std::fs;

use anyhow::{Result, ensure};

use super::{Case, SHORT, cases};
use crate::bed::{Bed, Guest};

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT; devices_on_every_irq_line_work, device_beyond_the_last_irq_line_is_refused_with_its_holders]
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
    let outcome = with_shares(bed, "true", &shares, LINES - OTHERS + 1)?.run()?;
    outcome.expect_error(&["20", "19", "console"])?;
    ensure!(outcome.stdout.is_empty(), "something was started");
    Ok(())
}
