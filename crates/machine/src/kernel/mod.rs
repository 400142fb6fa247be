//! Kernel images: what a file is, what the kernel in it can take, and how it gets into guest memory.
//!
//! The format is found out from the file itself: a libkrunfw bundle (a shared library that is only read, never executed), a
//! `bzImage`, or an ELF `vmlinux` with or without a PVH entry. Nothing in the file is trusted; what it says about itself is
//! checked before any of it is used.
//!
//! A `vmlinux` that has been compressed as a whole (`vmlinux.gz` and the like) is refused with a sentence that says so: no
//! decompressor is built in. A `bzImage` decompresses itself in the guest and is not concerned.
//!
//! This module needs no KVM.

mod bundle;
mod bzimage;
mod elf;
mod error;
mod initramfs;
#[cfg(test)]
mod test_images;
mod vmlinux;

use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use boot_params::{Region, SetupHeader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::limits::{KernelKind, KernelTraits};
use bundle::Bundle;
use bzimage::BzImage;
pub use error::{KernelError, KernelErrorReason};
use vmlinux::Vmlinux;

/// A kernel image on the host that has been looked through and found sound.
#[derive(Debug)]
pub struct KernelImage {
    path: PathBuf,
    /// Loading moves the file's position, and several machines may load from one image at once.
    file: Mutex<File>,
    format: Format,
    traits: KernelTraits,
}

#[derive(Debug)]
enum Format {
    Bundle(Bundle),
    BzImage(BzImage),
    Vmlinux(Vmlinux),
}

/// Where and how the loaded kernel is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPoint {
    /// The first instruction, a guest physical address.
    pub address: u64,
    /// The state that the kernel expects the vCPU in.
    pub protocol: BootProtocol,
    /// The header to copy into the zero page, if the image is a `bzImage`.
    pub setup_header: Option<SetupHeader>,
    /// Guest memory that the kernel uses until it has read the memory map.
    pub footprint: Region,
    /// The last address that an initramfs may take up.
    pub initrd_addr_max: u32,
}

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootProtocol {
    /// The 64-bit entry of the Linux boot protocol.
    LongMode,
    /// The PVH entry: 32-bit, no paging.
    Pvh,
}

/// A part of the bundle's file that can be mapped over guest memory instead of being copied: privately, page aligned.
#[derive(Debug)]
pub struct BundleMapping {
    /// The bundle.
    pub file: File,
    /// Where in the file the kernel begins, bytes; a multiple of the page size.
    pub offset: u64,
    /// Length in bytes; a multiple of the page size.
    pub len: u64,
    /// Where it goes, a guest physical address; a multiple of the page size.
    pub gpa: u64,
}

impl KernelImage {
    /// Opens a kernel image and finds out what it is.
    ///
    /// # Errors
    /// [`KernelError`] if it cannot be read, is no kernel for x86_64, is damaged, or is a bundle of an unknown version.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let fail = |reason| KernelError {
            path: path.to_owned(),
            reason,
        };
        let file = open_regular(path).map_err(fail)?;
        let format = Format::detect(&file).map_err(fail)?;
        let traits = format.traits();
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            format,
            traits,
        })
    }

    /// What a plan has to know of the kernel.
    #[must_use]
    pub fn traits(&self) -> &KernelTraits {
        &self.traits
    }

    /// Where and how the kernel is entered once it is in memory.
    #[must_use]
    pub fn entry_point(&self) -> EntryPoint {
        match &self.format {
            Format::Bundle(bundle) => bundle.entry_point(),
            Format::BzImage(image) => image.entry_point(),
            Format::Vmlinux(image) => image.entry_point(),
        }
    }

    /// What to map over guest memory instead of calling [`load`](Self::load): its pages are copied one by one as the guest
    /// writes to them, the others are shared by all machines. `None` for formats that have to be copied.
    ///
    /// # Errors
    /// [`KernelError`] if the file's descriptor cannot be duplicated.
    pub fn bundle_mapping(&self) -> Result<Option<BundleMapping>, KernelError> {
        let Format::Bundle(bundle) = &self.format else {
            return Ok(None);
        };
        let file = self.with_file(|file| file.try_clone().map_err(KernelErrorReason::Read))?;
        Ok(bundle.mapping(file))
    }

    /// Copies the kernel into guest memory. Memory is expected to be zero where the image has nothing to say, as fresh memory
    /// is; load again before each boot, since a kernel changes its own image.
    ///
    /// # Errors
    /// [`KernelError`] if it does not fit into the guest's memory or the file cannot be read any more.
    pub fn load<M: GuestMemoryBackend>(&self, mem: &M) -> Result<EntryPoint, KernelError> {
        let entry = self.entry_point();
        self.with_file(|file| {
            check_room(mem, entry.footprint)?;
            match &self.format {
                Format::Bundle(bundle) => copy(mem, file, bundle.image_offset(), bundle.image_region()),
                Format::BzImage(image) => image.load(mem, file),
                Format::Vmlinux(image) => image.load(mem, file),
            }
        })?;
        Ok(entry)
    }

    fn with_file<T>(&self, work: impl FnOnce(&mut File) -> Result<T, KernelErrorReason>) -> Result<T, KernelError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut file).map_err(|reason| KernelError {
            path: self.path.clone(),
            reason,
        })
    }
}

impl Format {
    fn traits(&self) -> KernelTraits {
        match self {
            Self::Bundle(bundle) => bundle.traits(),
            Self::BzImage(image) => image.traits(),
            Self::Vmlinux(image) => image.traits(),
        }
    }

    fn detect(file: &File) -> Result<Self, KernelErrorReason> {
        let len = file.metadata().map_err(KernelErrorReason::Read)?.len();
        let start = read_start(file)?;
        if start.starts_with(elf::MAGIC) {
            let elf = elf::Elf::open(file, len)?;
            return if elf.is_shared_object() {
                Bundle::find(&elf).map(Self::Bundle)
            } else {
                Vmlinux::find(&elf).map(Self::Vmlinux)
            };
        }
        if start.get(0x202..0x206) == Some(b"HdrS") {
            return BzImage::find(&start, len).map(Self::BzImage);
        }
        Err(compression(&start).map_or(KernelErrorReason::NotAKernel, KernelErrorReason::Compressed))
    }
}

/// Only regular files: opening a FIFO would wait, and the size of a device is 0.
fn open_regular(path: &Path) -> Result<File, KernelErrorReason> {
    let metadata = std::fs::metadata(path).map_err(KernelErrorReason::Read)?;
    if !metadata.is_file() {
        return Err(KernelErrorReason::NotAFile);
    }
    File::open(path).map_err(KernelErrorReason::Read)
}

/// The beginning of a file, as far as there is one.
fn read_start(file: &File) -> Result<Vec<u8>, KernelErrorReason> {
    let mut start = vec![0; boot_params::setup_header::WANTED];
    let mut len = 0;
    while len < start.len() {
        match file.read_at(&mut start[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(KernelErrorReason::Read(error)),
        }
    }
    start.truncate(len);
    Ok(start)
}

fn compression(start: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 6] = [
        (&[0x1f, 0x8b], "gzip"),
        (b"BZh", "bzip2"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
        (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    ];
    MAGICS
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
        .map(|(_, name)| *name)
}

/// Refuses a region that is not wholly guest memory.
fn check_room<M: GuestMemoryBackend>(mem: &M, region: Region) -> Result<(), KernelErrorReason> {
    let outside = KernelErrorReason::OutsideMemory {
        start: region.start,
        end: region.end(),
    };
    match usize::try_from(region.len) {
        Ok(len) if mem.check_range(GuestAddress(region.start), len) => Ok(()),
        _ => Err(outside),
    }
}

/// Copies `to.len` bytes from `offset` on into guest memory.
fn copy<M: GuestMemoryBackend>(mem: &M, file: &mut File, offset: u64, to: Region) -> Result<(), KernelErrorReason> {
    let outside = KernelErrorReason::OutsideMemory {
        start: to.start,
        end: to.end(),
    };
    let len = usize::try_from(to.len).map_err(|_| outside)?;
    file.seek(std::io::SeekFrom::Start(offset))
        .map_err(KernelErrorReason::Read)?;
    mem.read_exact_volatile_from(GuestAddress(to.start), file, len)
        .map_err(|error| KernelErrorReason::Load(error.to_string()))
}

/// What a kernel that says nothing about itself can take: the stock limits of Linux on x86.
fn stock_traits(kind: KernelKind, footprint: Region) -> KernelTraits {
    const STOCK_CMDLINE_CAPACITY: usize = 2048;
    const STOCK_INIT_ARGS: usize = 32;
    KernelTraits {
        kind,
        cmdline_capacity: STOCK_CMDLINE_CAPACITY,
        init_args: STOCK_INIT_ARGS,
        min_mem: footprint.end(),
        poweroff_token: false,
        kvm_clock: false,
        resets_idle_shares: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::GuestMemoryMmap;

    fn reason(bytes: &[u8]) -> KernelErrorReason {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        KernelImage::open(file.path()).unwrap_err().reason
    }

    #[test]
    fn files_that_are_no_kernel_are_told_so() {
        for bytes in [&b""[..], b"\x7f", b"#!/bin/sh\n", &[0; 4096]] {
            assert!(matches!(reason(bytes), KernelErrorReason::NotAKernel), "{bytes:?}");
        }
    }

    #[test]
    fn compressed_files_are_told_from_others() {
        for (bytes, name) in [(&[0x1f, 0x8b, 8][..], "gzip"), (&[0x28, 0xb5, 0x2f, 0xfd], "zstd")] {
            assert!(matches!(reason(bytes), KernelErrorReason::Compressed(found) if found == name));
        }
    }

    #[test]
    fn paths_without_a_regular_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let error = KernelImage::open(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("is not a file"), "{error}");
        let error = KernelImage::open(&folder.path().join("vmlinux")).unwrap_err();
        assert!(matches!(error.reason, KernelErrorReason::Read(_)));
    }

    #[test]
    fn message_names_the_file_and_what_was_looked_for() {
        let error = KernelError {
            path: "/boot/x".into(),
            reason: KernelErrorReason::NotAKernel,
        };
        assert_eq!(
            error.to_string(),
            "/boot/x is not a kernel: neither a libkrunfw bundle nor a bzImage nor an ELF vmlinux"
        );
    }

    #[test]
    fn memory_check_wants_every_byte() {
        let mem =
            GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(0x2000), 0x1000)]).unwrap();
        assert!(check_room(&mem, Region::new(0, 0x1000)).is_ok());
        for region in [
            Region::new(0, 0x1001),
            Region::new(0x1000, 1),
            Region::new(u64::MAX, 2),
            Region::new(0, u64::MAX),
        ] {
            assert!(check_room(&mem, region).is_err(), "{region:x?}");
        }
    }
}
