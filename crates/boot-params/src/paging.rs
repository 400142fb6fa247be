//! Page tables for the first instructions: the first GiB mapped onto itself in pages of 2 MiB.

use crate::Blob;
use crate::layout::{PD, PDPT, PML4};

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
const LARGE_PAGE_SHIFT: u32 = 21;
const ENTRIES: u64 = 512;

/// The three page tables as bytes in their places. The first two have one entry each; the rest of their pages is 0 and part
/// of the blob, so that they are right in memory that was used before.
pub fn identity_map() -> Vec<Blob> {
    vec![
        Blob::new(PML4, table(std::iter::once(PDPT | PRESENT_WRITABLE))),
        Blob::new(PDPT, table(std::iter::once(PD | PRESENT_WRITABLE))),
        Blob::new(
            PD,
            table((0..ENTRIES).map(|i| i << LARGE_PAGE_SHIFT | LARGE_PAGE | PRESENT_WRITABLE)),
        ),
    ]
}

fn table(entries: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut page: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
    page.resize(0x1000, 0);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(blob: &Blob, index: usize) -> u64 {
        u64::from_le_bytes(blob.bytes[8 * index..8 * index + 8].try_into().unwrap())
    }

    #[test]
    fn page_tables_point_at_each_other() {
        let tables = identity_map();
        assert_eq!(
            tables.iter().map(|blob| blob.address).collect::<Vec<_>>(),
            [0x9000, 0xa000, 0xb000]
        );
        assert_eq!((entry(&tables[0], 0), entry(&tables[1], 0)), (0xa003, 0xb003));
        assert!(
            tables[..2]
                .iter()
                .all(|table| table.bytes[8..].iter().all(|byte| *byte == 0))
        );
    }

    #[test]
    fn page_directory_maps_each_2_mib_onto_itself() {
        let directory = &identity_map()[2];
        assert_eq!(directory.bytes.len(), 4096);
        for index in 0..512 {
            assert_eq!(entry(directory, index), (index as u64) << 21 | 0x83);
        }
    }
}
