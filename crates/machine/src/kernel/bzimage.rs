//! `bzImage`: a kernel that decompresses itself in the guest.

use std::fs::File;

use boot_params::{Region, SetupHeader, layout};
use linux_loader::loader::{KernelLoader, bzimage::BzImage as Loader};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{BootProtocol, EntryPoint, KernelErrorReason, stock_traits};
use crate::limits::{KernelKind, KernelTraits};

/// Where a kernel goes that has no wish of its own.
const DEFAULT_LOAD: u64 = layout::HIGH_MEMORY;

/// A `bzImage` with a 64-bit entry point.
#[derive(Debug)]
pub(super) struct BzImage {
    header: SetupHeader,
    load: u64,
    footprint: Region,
    entry: u64,
}

impl BzImage {
    pub(super) fn find(start: &[u8], file_len: u64) -> Result<Self, KernelErrorReason> {
        let header = SetupHeader::parse(start).map_err(KernelErrorReason::BzImage)?;
        let kernel_len = file_len.checked_sub(header.kernel_offset()).filter(|len| *len > 0);
        let kernel_len = kernel_len.ok_or(KernelErrorReason::Damaged("it ends before its kernel begins"))?;
        if kernel_len < header.kernel_len() {
            return Err(KernelErrorReason::Damaged("it ends before its kernel does"));
        }
        let load = match header.pref_address() {
            0 => DEFAULT_LOAD,
            address => address,
        };
        let footprint = header.footprint(load, kernel_len);
        let reachable = load >= layout::HIGH_MEMORY && footprint.end() <= layout::IDENTITY_MAPPED;
        let entry = header.entry(load).filter(|_| reachable);
        let entry = entry.ok_or(KernelErrorReason::Damaged(
            "it wants to be loaded where it cannot be entered",
        ))?;
        Ok(Self {
            header,
            load,
            footprint,
            entry,
        })
    }

    pub(super) fn traits(&self) -> KernelTraits {
        let stock = stock_traits(KernelKind::BzImage, self.footprint);
        let said = usize::try_from(self.header.cmdline_size())
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        KernelTraits {
            cmdline_capacity: said.min(layout::COMMAND_LINE_MAX),
            ..stock
        }
    }

    pub(super) fn entry_point(&self) -> EntryPoint {
        EntryPoint {
            address: self.entry,
            protocol: BootProtocol::LongMode,
            setup_header: Some(self.header.clone()),
            footprint: self.footprint,
            initrd_addr_max: self.header.initrd_addr_max(),
        }
    }

    pub(super) fn load<M: GuestMemoryBackend>(&self, mem: &M, file: &mut File) -> Result<(), KernelErrorReason> {
        Loader::load(mem, Some(GuestAddress(self.load)), file, None)
            .map(drop)
            .map_err(|error| KernelErrorReason::Load(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelImage;
    use crate::kernel::test_images::{bzimage, file};
    use vm_memory::{Bytes, GuestMemoryMmap};

    fn reason(bytes: &crate::kernel::test_images::Image) -> KernelErrorReason {
        KernelImage::open(file(bytes).path()).unwrap_err().reason
    }

    #[test]
    fn bzimage_is_loaded_at_its_preferred_address() {
        let image = KernelImage::open(file(&bzimage()).path()).unwrap();
        assert_eq!(
            *image.traits(),
            KernelTraits {
                kind: KernelKind::BzImage,
                cmdline_capacity: 2048,
                init_args: 32,
                min_mem: 0x120_0000,
                poweroff_token: false,
                kvm_clock: false,
                resets_idle_shares: false,
            }
        );
        let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x120_0000)]).unwrap();
        let entry = image.load(&mem).unwrap();
        assert_eq!((entry.address, entry.protocol), (0x100_0200, BootProtocol::LongMode));
        assert_eq!(entry.footprint, Region::new(0x100_0000, 0x20_0000));
        assert!(entry.setup_header.is_some());
        assert_eq!(
            mem.read_obj::<u32>(GuestAddress(0x100_0000)).unwrap(),
            u32::from_le_bytes(*b"CODE")
        );
        assert!(image.bundle_mapping().unwrap().is_none());
    }

    #[test]
    fn bzimage_that_needs_more_memory_than_there_is_is_refused() {
        let image = KernelImage::open(file(&bzimage()).path()).unwrap();
        let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x120_0000 - 0x1000)]).unwrap();
        let error = image.load(&mem).unwrap_err();
        assert!(matches!(
            error.reason,
            KernelErrorReason::OutsideMemory {
                start: 0x100_0000,
                end: 0x120_0000
            }
        ));
    }

    #[test]
    fn bzimage_that_is_cut_short_is_damaged() {
        for cut in [0x600, 0x5ff, 0x400] {
            let mut bytes = bzimage();
            bytes.len = cut;
            assert!(matches!(reason(&bytes), KernelErrorReason::Damaged(_)), "{cut:#x}");
        }
        let mut bytes = bzimage();
        bytes.put(0x1f4, &0x1000_u32.to_le_bytes());
        assert!(matches!(
            reason(&bytes),
            KernelErrorReason::Damaged("it ends before its kernel does")
        ));
    }

    #[test]
    fn bzimage_with_an_impossible_load_address_is_damaged() {
        for address in [0x1000_u64, 0x4000_0000, u64::MAX] {
            let mut bytes = bzimage();
            bytes.put(0x258, &address.to_le_bytes());
            assert!(matches!(reason(&bytes), KernelErrorReason::Damaged(_)), "{address:#x}");
        }
    }

    #[test]
    fn bzimage_with_a_boastful_command_line_is_held_to_what_there_is_room_for() {
        let mut bytes = bzimage();
        bytes.put(0x238, &u32::MAX.to_le_bytes());
        let image = KernelImage::open(file(&bytes).path()).unwrap();
        assert_eq!(image.traits().cmdline_capacity, 0x1_0000);
    }

    #[test]
    fn bzimage_without_64_bit_entry_is_refused() {
        let mut bytes = bzimage();
        bytes.put(0x236, &[0]);
        let error = KernelImage::open(file(&bytes).path()).unwrap_err();
        assert!(error.to_string().contains("no 64-bit entry point"), "{error}");
    }
}
