//! The libkrunfw bundle: a shared library whose symbol `KERNEL_BUNDLE` is the kernel, flattened.
//!
//! The library has functions that tell the kernel's addresses. They are not called: that would mean to load and execute a
//! foreign file in the monitor. The addresses come from a table of known versions instead, by the file's build id.

use std::fs::File;

use boot_params::{Region, initramfs, layout::PAGE_SIZE};

use super::elf::{self, Elf, Section, Symbol};
use super::{BootProtocol, BundleMapping, EntryPoint, KernelErrorReason};
use crate::limits::KernelTraits;

const SYMBOL: &str = "KERNEL_BUNDLE";
const NOTE_OWNER: &[u8] = b"GNU\0";
const NOTE_BUILD_ID: u32 = 3;

/// What is known of one published bundle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) build_id: [u8; 20],
    /// Size of the symbol; the image is one byte shorter, for the symbol has a closing NUL.
    pub(super) symbol_len: u64,
    /// Size of the image in memory, without bss.
    image_len: u64,
    load: u64,
    entry: u64,
    /// End of bss: memory the kernel uses before it reads the memory map.
    end: u64,
}

/// The bundles that are known.
pub(super) const KNOWN: [Known; 1] = [Known {
    // libkrunfw 5.6.1, Linux 6.12.113
    build_id: [
        0x74, 0xfb, 0x86, 0x15, 0xec, 0x77, 0xe3, 0x37, 0x8e, 0x0b, 0xa3, 0xfa, 0x4e, 0x86, 0x4d, 0x63, 0x36, 0xf1,
        0x78, 0xfa,
    ],
    symbol_len: 0x149_0001,
    image_len: 0x149_0000,
    load: 0x100_0000,
    entry: 0x100_0123,
    end: 0x260_0000,
}];

/// A bundle of a known version.
#[derive(Debug)]
pub(super) struct Bundle {
    known: Known,
    offset: u64,
}

impl Bundle {
    pub(super) fn find(elf: &Elf<'_>) -> Result<Self, KernelErrorReason> {
        let sections = elf.sections()?;
        let symbol = elf
            .dynamic_symbol(&sections, SYMBOL)?
            .ok_or(KernelErrorReason::NoBundle)?;
        let build_id = build_id(elf, &sections)?;
        let known = KNOWN.into_iter().find(|known| known.build_id[..] == build_id[..]);
        let known = known.ok_or_else(|| KernelErrorReason::UnknownBundle {
            build_id: hex(&build_id),
        })?;
        if symbol.size != known.symbol_len {
            return Err(KernelErrorReason::Damaged(
                "the size of its kernel is not that of its version",
            ));
        }
        let offset = file_offset(&sections, &symbol).filter(|offset| elf.has(*offset, known.image_len));
        let offset = offset.ok_or(KernelErrorReason::Damaged("its kernel is outside the file"))?;
        Ok(Self { known, offset })
    }

    pub(super) fn traits(&self) -> KernelTraits {
        KernelTraits::bundle()
    }

    pub(super) fn entry_point(&self) -> EntryPoint {
        EntryPoint {
            address: self.known.entry,
            protocol: BootProtocol::LongMode,
            setup_header: None,
            footprint: Region::new(self.known.load, self.known.end - self.known.load),
            initrd_addr_max: initramfs::DEFAULT_ADDR_MAX,
        }
    }

    pub(super) fn image_offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn image_region(&self) -> Region {
        Region::new(self.known.load, self.known.image_len)
    }

    /// `None` if the linker did not align the kernel to a page of the file.
    pub(super) fn mapping(&self, file: File) -> Option<BundleMapping> {
        let Region { start: gpa, len } = self.image_region();
        let aligned = [self.offset, gpa, len]
            .iter()
            .all(|number| number.is_multiple_of(PAGE_SIZE));
        aligned.then_some(BundleMapping {
            file,
            offset: self.offset,
            len,
            gpa,
        })
    }
}

/// Where a symbol's bytes are in the file; `None` if they are not.
fn file_offset(sections: &[Section], symbol: &Symbol) -> Option<u64> {
    let section = sections
        .get(usize::from(symbol.section))
        .filter(|section| section.kind != elf::SHT_NOBITS)?;
    let within = symbol.value.checked_sub(section.addr)?;
    let end = within.checked_add(symbol.size)?;
    if end <= section.len {
        section.offset.checked_add(within)
    } else {
        None
    }
}

fn build_id(elf: &Elf<'_>, sections: &[Section]) -> Result<Vec<u8>, KernelErrorReason> {
    for section in sections.iter().filter(|section| section.kind == elf::SHT_NOTE) {
        if let Some(id) = elf.note(section.offset, section.len, NOTE_OWNER, NOTE_BUILD_ID)? {
            return Ok(id);
        }
    }
    Ok(Vec::new())
}

fn hex(bytes: &[u8]) -> String {
    const ENOUGH: usize = 32;
    if bytes.is_empty() {
        return "none".into();
    }
    bytes.iter().take(ENOUGH).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelImage;
    use crate::kernel::test_images::{bundle, file};

    #[test]
    fn bundle_of_a_known_version_is_found_and_can_be_mapped() {
        let image = KernelImage::open(file(&bundle()).path()).unwrap();
        assert_eq!(*image.traits(), KernelTraits::bundle());
        let entry = image.entry_point();
        assert_eq!((entry.address, entry.protocol), (0x100_0123, BootProtocol::LongMode));
        assert_eq!(entry.footprint, Region::new(0x100_0000, 0x160_0000));
        let mapping = image.bundle_mapping().unwrap().unwrap();
        assert_eq!(
            (mapping.offset, mapping.len, mapping.gpa),
            (0x1_0000, 0x149_0000, 0x100_0000)
        );
    }

    #[test]
    fn bundle_whose_kernel_is_not_on_a_page_has_no_mapping() {
        let known = KNOWN[0];
        let file = tempfile::tempfile().unwrap();
        assert!(
            Bundle {
                known,
                offset: 0x1_0008
            }
            .mapping(file)
            .is_none()
        );
    }

    #[test]
    fn bundle_of_an_unknown_version_is_named() {
        let mut bytes = bundle();
        bytes.set_build_id(&[0xab; 20]);
        let error = KernelImage::open(file(&bytes).path()).unwrap_err();
        assert!(error.to_string().contains(&"ab".repeat(20)), "{error}");
    }

    #[test]
    fn bundle_without_build_id_is_unknown() {
        let mut bytes = bundle();
        bytes.set_build_id(&[]);
        let error = KernelImage::open(file(&bytes).path()).unwrap_err();
        assert!(error.to_string().contains("build id none"), "{error}");
    }

    #[test]
    fn shared_library_without_the_symbol_is_no_bundle() {
        let mut bytes = bundle();
        bytes.rename_symbol(b"KERNEL_BUNDLF");
        assert!(matches!(
            KernelImage::open(file(&bytes).path()).unwrap_err().reason,
            KernelErrorReason::NoBundle
        ));
    }

    #[test]
    fn bundle_whose_kernel_is_outside_its_section_or_file_is_damaged() {
        for (value, size) in [
            (0x1_0001, 0x149_0001),
            (u64::MAX, 0x149_0001),
            (0xffff, 0x149_0001),
            (0x1_0000, 0x149_0002),
        ] {
            let mut bytes = bundle();
            bytes.set_symbol(value, size);
            let reason = KernelImage::open(file(&bytes).path()).unwrap_err().reason;
            assert!(
                matches!(reason, KernelErrorReason::Damaged(_)),
                "{value:#x} {size:#x}: {reason}"
            );
        }
        let mut bytes = bundle();
        bytes.len -= 2;
        assert!(matches!(
            KernelImage::open(file(&bytes).path()).unwrap_err().reason,
            KernelErrorReason::Damaged(_)
        ));
    }
}
