//! The guest has the memory that was asked for.

use anyhow::{Context, Result, ensure};

use super::{Case, SHORT, cases};
use crate::bed::Bed;

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT;
        memory_of_64_mib_is_all_there,
        memory_of_512_mib_is_all_there,
        memory_of_3300_mib_is_all_there,
        memory_of_4096_mib_is_all_there,
    ]
}

/// Page 0, and 0x9fc00 to 0xfffff, are no System RAM on a PC.
const HOLES_BYTES: u64 = 0x1000 + 0x6_0400;

fn memory_is_all_there(bed: &Bed, mib: u64) -> Result<()> {
    let outcome = bed
        .guest(&["cat", "/proc/iomem"])
        .with(["-m".to_owned(), mib.to_string()])
        .run()?;
    let iomem = outcome.expect_code(0)?.text();
    let mut bytes = 0;
    for line in iomem.lines().filter(|line| line.ends_with(" : System RAM")) {
        let range = line.split(' ').next().unwrap_or_default();
        let (first, last) = range.split_once('-').with_context(|| format!("no range in {line:?}"))?;
        bytes += u64::from_str_radix(last, 16)? - u64::from_str_radix(first, 16)? + 1;
    }
    let wanted = (mib << 20) - HOLES_BYTES;
    ensure!(bytes == wanted, "System RAM adds up to {bytes} bytes, not to {wanted}");
    Ok(())
}

fn memory_of_64_mib_is_all_there(bed: &Bed) -> Result<()> {
    memory_is_all_there(bed, 64)
}

fn memory_of_512_mib_is_all_there(bed: &Bed) -> Result<()> {
    memory_is_all_there(bed, 512)
}

fn memory_of_3300_mib_is_all_there(bed: &Bed) -> Result<()> {
    memory_is_all_there(bed, 3300)
}

fn memory_of_4096_mib_is_all_there(bed: &Bed) -> Result<()> {
    memory_is_all_there(bed, 4096)
}
