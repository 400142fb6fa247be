//! ELF `vmlinux`: loaded segment by segment, entered the PVH way if it has the note for it.

use std::fs::File;

use boot_params::{Region, initramfs, layout};
use linux_loader::loader::{KernelLoader, elf::Elf as Loader};
use vm_memory::GuestMemoryBackend;

use super::elf::{self, Elf, Segment};
use super::{BootProtocol, EntryPoint, KernelErrorReason, stock_traits};
use crate::limits::{KernelKind, KernelTraits};

const NOTE_OWNER: &[u8] = b"Xen\0";
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PVH_ENTRY: u32 = 18;

/// An ELF kernel whose segments and entry point are sound.
#[derive(Debug)]
pub(super) struct Vmlinux {
    footprint: Region,
    entry: u64,
    protocol: BootProtocol,
}

impl Vmlinux {
    pub(super) fn find(elf: &Elf<'_>) -> Result<Self, KernelErrorReason> {
        if !elf.is_executable() {
            return Err(KernelErrorReason::NotAKernel);
        }
        let segments = elf.segments()?;
        let loads: Vec<&Segment> = segments
            .iter()
            .filter(|s| s.kind == elf::PT_LOAD && s.mem_len > 0)
            .collect();
        let footprint = footprint(&loads)?;
        let (entry, protocol) = match pvh_entry(elf, &segments)? {
            Some(entry) => (entry, BootProtocol::Pvh),
            None => (elf.entry, BootProtocol::LongMode),
        };
        let entered = Region::new(entry, 1);
        if !loads
            .iter()
            .any(|segment| Region::new(segment.paddr, segment.mem_len).contains(&entered))
        {
            return Err(KernelErrorReason::Damaged("its entry point is in no segment"));
        }
        if entry >= layout::IDENTITY_MAPPED {
            return Err(KernelErrorReason::Damaged("its entry point is above the first GiB"));
        }
        Ok(Self {
            footprint,
            entry,
            protocol,
        })
    }

    pub(super) fn traits(&self) -> KernelTraits {
        let kind = match self.protocol {
            BootProtocol::LongMode => KernelKind::Elf,
            BootProtocol::Pvh => KernelKind::Pvh,
        };
        stock_traits(kind, self.footprint)
    }

    pub(super) fn entry_point(&self) -> EntryPoint {
        EntryPoint {
            address: self.entry,
            protocol: self.protocol,
            setup_header: None,
            footprint: self.footprint,
            initrd_addr_max: initramfs::DEFAULT_ADDR_MAX,
        }
    }

    pub(super) fn load<M: GuestMemoryBackend>(&self, mem: &M, file: &mut File) -> Result<(), KernelErrorReason> {
        Loader::load(mem, None, file, None)
            .map(drop)
            .map_err(|error| KernelErrorReason::Load(error.to_string()))
    }
}

/// From the lowest to the highest address of the segments. None may reach below 1 MiB, where our boot structures are.
fn footprint(loads: &[&Segment]) -> Result<Region, KernelErrorReason> {
    let mut start = u64::MAX;
    let mut end = 0;
    for segment in loads {
        let segment_end = segment.paddr.checked_add(segment.mem_len);
        let segment_end = segment_end.ok_or(KernelErrorReason::Damaged("a segment goes beyond the last address"))?;
        if segment.file_len > segment.mem_len {
            return Err(KernelErrorReason::Damaged(
                "a segment is larger in the file than in memory",
            ));
        }
        start = start.min(segment.paddr);
        end = end.max(segment_end);
    }
    match end.checked_sub(start) {
        None => Err(KernelErrorReason::Damaged("it has nothing to load")),
        Some(_) if start < layout::HIGH_MEMORY => Err(KernelErrorReason::Damaged("a segment lies below 1 MiB")),
        Some(len) => Ok(Region::new(start, len)),
    }
}

fn pvh_entry(elf: &Elf<'_>, segments: &[Segment]) -> Result<Option<u64>, KernelErrorReason> {
    for segment in segments.iter().filter(|segment| segment.kind == elf::PT_NOTE) {
        if let Some(content) = elf.note(segment.offset, segment.file_len, NOTE_OWNER, NOTE_PVH_ENTRY)? {
            // 4 bytes by the ABI, 8 in kernels that were linked with a 64-bit note.
            let bytes = content
                .first_chunk::<4>()
                .ok_or(KernelErrorReason::Damaged("its PVH note is cut short"))?;
            return Ok(Some(u64::from(u32::from_le_bytes(*bytes))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelImage;
    use crate::kernel::test_images::{Image, file, vmlinux};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    const PROGRAM_HEADER: usize = 64;
    const NOTE_HEADER: usize = 64 + 56;

    fn reason(bytes: &Image) -> KernelErrorReason {
        KernelImage::open(file(bytes).path()).unwrap_err().reason
    }

    #[test]
    fn vmlinux_with_a_pvh_note_is_entered_there() {
        let image = KernelImage::open(file(&vmlinux()).path()).unwrap();
        let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x102_0000)]).unwrap();
        let entry = image.load(&mem).unwrap();
        assert_eq!((entry.address, entry.protocol), (0x100_0040, BootProtocol::Pvh));
        assert_eq!(entry.footprint, Region::new(0x100_0000, 0x2_0000));
        assert_eq!(image.traits().kind, KernelKind::Pvh);
        assert_eq!(
            mem.read_obj::<u32>(GuestAddress(0x100_0000)).unwrap(),
            u32::from_le_bytes(*b"CODE")
        );
    }

    #[test]
    fn vmlinux_without_a_note_is_entered_in_64_bit_mode() {
        let mut bytes = vmlinux();
        bytes.put(NOTE_HEADER, &[0; 4]);
        let image = KernelImage::open(file(&bytes).path()).unwrap();
        let entry = image.entry_point();
        assert_eq!((entry.address, entry.protocol), (0x100_0000, BootProtocol::LongMode));
        let traits = image.traits();
        assert_eq!(
            (traits.kind, traits.cmdline_capacity, traits.init_args),
            (KernelKind::Elf, 2048, 32)
        );
    }

    #[test]
    fn vmlinux_with_offsets_outside_the_file_is_damaged() {
        // CVE-2022-23523: offsets of the ELF header were trusted.
        for (at, value) in [
            (32, u64::MAX),
            (32, 0x1_0000),
            (PROGRAM_HEADER + 8, u64::MAX),
            (PROGRAM_HEADER + 8, 0x1_0000),
            (PROGRAM_HEADER + 32, u64::MAX),
            (NOTE_HEADER + 8, u64::MAX),
            (NOTE_HEADER + 32, 1 << 40),
        ] {
            let mut bytes = vmlinux();
            bytes.put(at, &value.to_le_bytes());
            assert!(
                matches!(reason(&bytes), KernelErrorReason::Damaged(_)),
                "{at} = {value:#x}"
            );
        }
    }

    #[test]
    fn vmlinux_with_impossible_segments_is_damaged() {
        for (at, value, what) in [
            (PROGRAM_HEADER + 24, 0x1000, "a segment lies below 1 MiB"),
            (PROGRAM_HEADER + 24, u64::MAX, "a segment goes beyond the last address"),
            (PROGRAM_HEADER + 40, 1, "a segment is larger in the file than in memory"),
            (PROGRAM_HEADER + 40, 0, "it has nothing to load"),
            (PROGRAM_HEADER + 24, 0x200_0000, "its entry point is in no segment"),
        ] {
            let mut bytes = vmlinux();
            bytes.put(at, &value.to_le_bytes());
            assert!(
                matches!(reason(&bytes), KernelErrorReason::Damaged(found) if found == what),
                "{what}"
            );
        }
    }

    #[test]
    fn vmlinux_that_reaches_beyond_memory_is_refused() {
        let mut bytes = vmlinux();
        bytes.put(PROGRAM_HEADER + 40, &(1_u64 << 40).to_le_bytes());
        let image = KernelImage::open(file(&bytes).path()).unwrap();
        let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x102_0000)]).unwrap();
        assert!(matches!(
            image.load(&mem).unwrap_err().reason,
            KernelErrorReason::OutsideMemory { .. }
        ));
    }

    #[test]
    fn vmlinux_for_another_machine_is_named_so() {
        let mut bytes = vmlinux();
        bytes.put(18, &183_u16.to_le_bytes());
        assert!(matches!(
            reason(&bytes),
            KernelErrorReason::OtherMachine { machine: 183 }
        ));
    }

    #[test]
    fn object_files_are_no_kernels() {
        let mut bytes = vmlinux();
        bytes.put(16, &1_u16.to_le_bytes());
        assert!(matches!(reason(&bytes), KernelErrorReason::NotAKernel));
    }

    #[test]
    fn vmlinux_cut_at_any_length_is_refused() {
        for len in 0..vmlinux().len {
            let mut bytes = vmlinux();
            bytes.len = len;
            let _ = reason(&bytes);
        }
    }
}
