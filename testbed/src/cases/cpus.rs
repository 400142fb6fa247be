//! The guest has the processors that were asked for.

use anyhow::Result;

use super::{Case, LONG, cases};
use crate::bed::Bed;

pub(super) fn cases() -> Vec<Case> {
    cases![LONG; processors_1_boot, processors_2_boot, processors_8_boot]
}

fn processors_boot(bed: &Bed, count: usize) -> Result<()> {
    let line = "nproc; grep -c ^processor /proc/cpuinfo";
    let outcome = bed.shell(line).with(["-c".to_owned(), count.to_string()]).run()?;
    outcome.expect_code(0)?.expect_text(&format!("{count}\n{count}\n"))?;
    Ok(())
}

fn processors_1_boot(bed: &Bed) -> Result<()> {
    processors_boot(bed, 1)
}

fn processors_2_boot(bed: &Bed) -> Result<()> {
    processors_boot(bed, 2)
}

fn processors_8_boot(bed: &Bed) -> Result<()> {
    processors_boot(bed, 8)
}
