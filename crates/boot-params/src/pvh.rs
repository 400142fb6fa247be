//! The PVH entry: 32-bit, no paging, RBX points at `hvm_start_info` (Xen's `arch-x86/hvm/start_info.h`, version 1).

use crate::boot::{check_room, command_line};
use crate::layout::{COMMAND_LINE, PVH_MEMORY_MAP, PVH_MODULES, PVH_START_INFO};
use crate::registers::{CR0_ET, CR0_PE, RFLAGS_RESERVED};
use crate::{Blob, BootConfig, BootImage, BootParamsError, BootRegisters, E820Entry, Region, e820, gdt, mptable};

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
/// The memory map has one page.
const MAX_MEMORY_MAP_ENTRIES: usize = 0x1000 / 24;

/// All that a kernel needs that is entered the PVH way.
///
/// # Errors
/// A [`BootParamsError`] that says which part of `config` cannot be carried out.
pub fn boot_image(config: &BootConfig<'_>) -> Result<BootImage, BootParamsError> {
    check_room(config.ram)?;
    if u32::try_from(config.entry).is_err() {
        return Err(BootParamsError::EntryNotReachable { entry: config.entry });
    }
    let map = e820(config.ram);
    let mut blobs = gdt::tables(&gdt::CODE32, &gdt::TSS32);
    blobs.push(memory_map(&map)?);
    blobs.push(start_info(config.initramfs, map.len()));
    blobs.extend(config.initramfs.map(module));
    blobs.extend(mptable(config.cpus, config.io_apic_pins)?);
    blobs.push(command_line(config.command_line)?);
    Ok(BootImage {
        blobs,
        registers: registers(config.entry),
    })
}

/// The registers of a vCPU that starts at the PVH entry point `entry`.
pub fn registers(entry: u64) -> BootRegisters {
    BootRegisters {
        rip: entry,
        rbx: PVH_START_INFO,
        rflags: RFLAGS_RESERVED,
        cs: gdt::CODE32,
        data: gdt::DATA,
        tr: gdt::TSS32,
        gdt: gdt::GDTR,
        idt: gdt::IDTR,
        cr0: CR0_PE | CR0_ET,
        ..BootRegisters::default()
    }
}

fn start_info(initramfs: Option<Region>, map_entries: usize) -> Blob {
    let modules = u32::from(initramfs.is_some());
    let module_list = if initramfs.is_some() { PVH_MODULES } else { 0 };
    let mut bytes = Vec::with_capacity(56);
    for word in [MAGIC, VERSION, 0, modules] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let no_rsdp = 0;
    for address in [module_list, COMMAND_LINE, no_rsdp, PVH_MEMORY_MAP] {
        bytes.extend_from_slice(&address.to_le_bytes());
    }
    bytes.extend_from_slice(&u32::try_from(map_entries).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    Blob::new(PVH_START_INFO, bytes)
}

fn module(initramfs: Region) -> Blob {
    let no_command_line = 0;
    let words = [initramfs.start, initramfs.len, no_command_line, 0];
    Blob::new(PVH_MODULES, words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn memory_map(map: &[E820Entry]) -> Result<Blob, BootParamsError> {
    if map.len() > MAX_MEMORY_MAP_ENTRIES {
        return Err(BootParamsError::MemoryMapTooLong {
            entries: map.len(),
            max: MAX_MEMORY_MAP_ENTRIES,
        });
    }
    // The same numbers mean the same kinds here; only a reserved word follows each entry.
    let bytes = map
        .iter()
        .flat_map(|entry| entry.emit().into_iter().chain([0; 4]))
        .collect();
    Ok(Blob::new(PVH_MEMORY_MAP, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram_regions;

    fn image(initramfs: Option<Region>) -> BootImage {
        let ram = ram_regions(4 << 30).unwrap();
        boot_image(&BootConfig {
            entry: 0x100_0000,
            ram: &ram,
            command_line: b"quiet",
            initramfs,
            cpus: 1,
            io_apic_pins: 24,
            setup_header: None,
        })
        .unwrap()
    }

    fn at(image: &BootImage, address: u64) -> &[u8] {
        image
            .blobs
            .iter()
            .find(|blob| blob.address == address)
            .map_or(&[], |blob| &blob.bytes)
    }

    #[test]
    fn start_info_without_initramfs_has_these_bytes() {
        #[rustfmt::skip]
        let expected = [
            0x78, 0xc5, 0x6e, 0x33, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0x70, 0, 0, 0, 0, 0, 0,
            4, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(at(&image(None), 0x6000), expected);
        assert_eq!(at(&image(None), 0x6040), []);
    }

    #[test]
    fn start_info_with_initramfs_names_one_module() {
        let image = image(Some(Region::new(0x30_0000, 0x1234)));
        assert_eq!(at(&image, 0x6000)[12..24], [1, 0, 0, 0, 0x40, 0x60, 0, 0, 0, 0, 0, 0]);
        let mut expected = [0; 32];
        expected[2] = 0x30;
        expected[8..10].copy_from_slice(&[0x34, 0x12]);
        assert_eq!(at(&image, 0x6040), expected);
    }

    #[test]
    fn memory_map_entries_are_24_bytes() {
        let image = image(None);
        let map = at(&image, 0x7000);
        assert_eq!(map.len(), 4 * 24);
        let mut last = [0; 24];
        last[4] = 1;
        last[11] = 0x30;
        last[16] = 1;
        assert_eq!(map[72..], last);
    }

    #[test]
    fn registers_of_the_pvh_entry_are_flat_and_unpaged() {
        let registers = image(None).registers;
        assert_eq!(
            (registers.rip, registers.rbx, registers.rflags),
            (0x100_0000, 0x6000, 2)
        );
        assert_eq!(
            (registers.cr0, registers.cr3, registers.cr4, registers.efer),
            (0x11, 0, 0, 0)
        );
        assert_eq!(
            (registers.cs.big, registers.cs.long, registers.tr.limit),
            (true, false, 0x67)
        );
    }
}
