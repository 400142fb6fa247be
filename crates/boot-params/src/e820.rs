//! The memory map the kernel is told, named after the BIOS call that used to give it.

use crate::Region;
use crate::layout::{BASE_MEMORY_END, HIGH_MEMORY};

/// What a range of addresses is, with the number that the map carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// Usable memory.
    Ram = 1,
    /// Not to be touched.
    Reserved = 2,
}

/// One range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// The addresses.
    pub region: Region,
    /// What they are.
    pub kind: E820Kind,
}

impl E820Entry {
    /// Bytes of an entry in the zero page.
    pub const LEN: usize = 20;

    /// The entry as it stands in the zero page: address, size, kind.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.region.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.region.len.to_le_bytes());
        bytes[16..].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes
    }
}

/// The memory map of a guest with this RAM: all of it is usable but `[0x9fc00, 0x100000)`, where a PC has its firmware
/// tables and its video memory, and where the kernel would otherwise put data over the MP floating pointer.
pub fn e820(ram: &[Region]) -> Vec<E820Entry> {
    let legacy = Region::new(BASE_MEMORY_END, HIGH_MEMORY - BASE_MEMORY_END);
    let mut map = Vec::with_capacity(ram.len() + 2);
    for region in ram {
        push_between(&mut map, region, 0, legacy.start, E820Kind::Ram);
        push_between(&mut map, region, legacy.start, legacy.end(), E820Kind::Reserved);
        push_between(&mut map, region, legacy.end(), u64::MAX, E820Kind::Ram);
    }
    map
}

fn push_between(map: &mut Vec<E820Entry>, region: &Region, low: u64, high: u64, kind: E820Kind) {
    let start = region.start.max(low);
    let end = region.end().min(high);
    if start < end {
        map.push(E820Entry {
            region: Region::new(start, end - start),
            kind,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ram_regions;
    use proptest::prelude::*;

    fn map_of(mem_bytes: u64) -> Vec<(u64, u64, E820Kind)> {
        let ram = ram_regions(mem_bytes).unwrap();
        e820(&ram)
            .iter()
            .map(|entry| (entry.region.start, entry.region.end(), entry.kind))
            .collect()
    }

    #[test]
    fn e820_below_the_gap_has_exact_ends() {
        assert_eq!(
            map_of(512 << 20),
            [
                (0, 0x9_fc00, E820Kind::Ram),
                (0x9_fc00, 0x10_0000, E820Kind::Reserved),
                (0x10_0000, 0x2000_0000, E820Kind::Ram),
            ]
        );
    }

    #[test]
    fn e820_above_4_gib_is_not_one_byte_too_long() {
        assert_eq!(
            map_of(4096 << 20).last(),
            Some(&(0x1_0000_0000, 0x1_3000_0000, E820Kind::Ram))
        );
    }

    #[test]
    fn e820_of_a_tiny_guest_stays_inside_its_ram() {
        assert_eq!(map_of(0x1_0000), [(0, 0x1_0000, E820Kind::Ram)]);
        assert_eq!(
            map_of(0xa_0000),
            [(0, 0x9_fc00, E820Kind::Ram), (0x9_fc00, 0xa_0000, E820Kind::Reserved)]
        );
    }

    #[test]
    fn e820_entry_bytes_are_address_size_kind() {
        let entry = E820Entry {
            region: Region::new(0x1122_3344_5566_7788, 0x99),
            kind: E820Kind::Reserved,
        };
        assert_eq!(
            entry.emit(),
            [
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x99, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0
            ]
        );
    }

    proptest! {
        #[test]
        fn e820_covers_ram_exactly_and_in_order(mem_bytes in 1_u64..=1 << 40) {
            let ram = ram_regions(mem_bytes).unwrap();
            let map = e820(&ram);
            let mapped: u64 = map.iter().map(|entry| entry.region.len).sum();
            prop_assert_eq!(mapped, ram.iter().map(|region| region.len).sum::<u64>());
            prop_assert!(map.windows(2).all(|pair| pair[0].region.end() <= pair[1].region.start));
            prop_assert!(map.iter().all(|entry| ram.iter().any(|region| region.contains(&entry.region))));
        }
    }
}
