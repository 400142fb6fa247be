//! Where the guest's RAM is.

use crate::BootParamsError;
use crate::layout::{GAP_END, GAP_START, PAGE_SIZE};

/// End of the physical addresses that a kernel with four-level page tables can map: 64 TiB.
pub const ADDRESS_END: u64 = 1 << 46;

/// The most RAM a guest can have, in bytes: all below [`ADDRESS_END`] but the 32-bit gap.
pub const MAX_BYTES: u64 = ADDRESS_END - (GAP_END - GAP_START);

/// A range of guest physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Region {
    /// The region of `len` bytes from `start` on.
    pub const fn new(start: u64, len: u64) -> Region {
        Region { start, len }
    }

    /// The first address after the region; `u64::MAX` where there is none.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether all of `other` is inside.
    pub const fn contains(&self, other: &Region) -> bool {
        other.start >= self.start && other.end() <= self.end()
    }

    /// Whether the two share an address.
    pub const fn overlaps(&self, other: &Region) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// The RAM regions of a guest of `mem_bytes`, which is rounded up to whole pages: `[0, min(S, gap))` and, if more was asked
/// for, the rest from 4 GiB on. Together they are what was asked for and nothing else; a kernel lies inside them.
///
/// # Errors
/// [`BootParamsError::NoMemory`] for 0 bytes, [`BootParamsError::TooMuchMemory`] above [`MAX_BYTES`].
pub fn ram_regions(mem_bytes: u64) -> Result<Vec<Region>, BootParamsError> {
    if mem_bytes == 0 {
        return Err(BootParamsError::NoMemory);
    }
    let size = mem_bytes
        .checked_next_multiple_of(PAGE_SIZE)
        .filter(|size| *size <= MAX_BYTES)
        .ok_or(BootParamsError::TooMuchMemory {
            asked: mem_bytes,
            max: MAX_BYTES,
        })?;
    let low = size.min(GAP_START);
    let mut regions = vec![Region::new(0, low)];
    if size > low {
        regions.push(Region::new(GAP_END, size - low));
    }
    Ok(regions)
}

/// End of the RAM that lies below the 32-bit gap.
pub fn low_end(ram: &[Region]) -> u64 {
    ram.iter()
        .find(|region| region.start == 0)
        .map_or(0, |region| region.len.min(GAP_START))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ram_that_ends_below_the_gap_is_one_region() {
        for mib in [64, 128, 512, 3300, 3328] {
            assert_eq!(ram_regions(mib * MIB).unwrap(), [Region::new(0, mib * MIB)]);
        }
    }

    #[test]
    fn ram_that_reaches_the_gap_continues_at_4_gib() {
        assert_eq!(
            ram_regions(4096 * MIB).unwrap(),
            [Region::new(0, 0xd000_0000), Region::new(0x1_0000_0000, 0x3000_0000)]
        );
        assert_eq!(
            ram_regions(GAP_START + 1).unwrap(),
            [Region::new(0, 0xd000_0000), Region::new(0x1_0000_0000, 0x1000)]
        );
    }

    #[test]
    fn ram_of_no_or_unmappable_size_is_refused() {
        assert_eq!(ram_regions(0), Err(BootParamsError::NoMemory));
        for asked in [MAX_BYTES + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(
                ram_regions(asked),
                Err(BootParamsError::TooMuchMemory { asked, max: MAX_BYTES })
            );
        }
        assert_eq!(ram_regions(MAX_BYTES).unwrap().last().unwrap().end(), ADDRESS_END);
    }

    #[test]
    fn region_end_of_a_wrapping_region_saturates() {
        assert_eq!(Region::new(u64::MAX, 2).end(), u64::MAX);
    }

    proptest! {
        #[test]
        fn ram_sums_to_what_was_asked_and_leaves_the_gap_free(pages in (64 * MIB / PAGE_SIZE)..=((1 << 40) / PAGE_SIZE)) {
            let asked = pages * PAGE_SIZE;
            let ram = ram_regions(asked).unwrap();
            prop_assert_eq!(ram.iter().map(|region| region.len).sum::<u64>(), asked);
            let gap = Region::new(GAP_START, GAP_END - GAP_START);
            prop_assert!(ram.iter().all(|region| !region.overlaps(&gap)));
            prop_assert!(ram.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        }

        #[test]
        fn ram_of_any_size_is_whole_pages_and_never_less(asked in 1..=MAX_BYTES) {
            let sum: u64 = ram_regions(asked).unwrap().iter().map(|region| region.len).sum();
            prop_assert!(sum >= asked && sum - asked < PAGE_SIZE && sum.is_multiple_of(PAGE_SIZE));
        }
    }
}
