//! The initial RAM file system: a file that goes into guest memory as it is.

use std::fs::File;
use std::path::{Path, PathBuf};

use boot_params::{Region, initramfs, memory};
use vm_memory::GuestMemoryBackend;

use super::{EntryPoint, KernelError, KernelErrorReason, check_room, copy, open_regular};

/// An initramfs on the host. Its content is between its maker and the kernel.
#[derive(Debug)]
pub struct Initramfs {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Initramfs {
    /// Opens it.
    ///
    /// # Errors
    /// [`KernelError`] if it is no file, is empty or cannot be read.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let fail = |reason| KernelError {
            path: path.to_owned(),
            reason,
        };
        let file = open_regular(path).map_err(fail)?;
        let len = file
            .metadata()
            .map_err(|error| fail(KernelErrorReason::Read(error)))?
            .len();
        if len == 0 {
            return Err(fail(KernelErrorReason::Damaged("it is empty")));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
        })
    }

    /// Where it goes in a guest with this RAM and this kernel, and nothing is written yet.
    ///
    /// # Errors
    /// [`KernelError`] if there is no room for it.
    pub fn place(&self, ram: &[Region], kernel: &EntryPoint) -> Result<Region, KernelError> {
        initramfs::place(self.len, memory::low_end(ram), kernel.initrd_addr_max, kernel.footprint)
            .map_err(|error| self.fail(KernelErrorReason::Place(error)))
    }

    /// Copies it to `region`, which [`place`](Self::place) returned.
    ///
    /// # Errors
    /// [`KernelError`] if the region is not guest memory or the file cannot be read any more.
    pub fn load<M: GuestMemoryBackend>(mut self, mem: &M, region: Region) -> Result<(), KernelError> {
        let loaded = check_room(mem, region).and_then(|()| copy(mem, &mut self.file, 0, region));
        loaded.map_err(|reason| self.fail(reason))
    }

    fn fail(&self, reason: KernelErrorReason) -> KernelError {
        KernelError {
            path: self.path.clone(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelImage;
    use crate::kernel::test_images::{bzimage, file};
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    #[test]
    fn initramfs_goes_to_the_end_of_low_memory() {
        let ram = boot_params::ram_regions(64 << 20).unwrap();
        let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
        let kernel = KernelImage::open(file(&bzimage()).path()).unwrap().entry_point();
        let mut cpio = tempfile::NamedTempFile::new().unwrap();
        cpio.write_all(b"070701").unwrap();
        let initramfs = Initramfs::open(cpio.path()).unwrap();
        let region = initramfs.place(&ram, &kernel).unwrap();
        assert_eq!(region, Region::new((64 << 20) - 0x1000, 6));
        initramfs.load(&mem, region).unwrap();
        let mut bytes = [0; 7];
        mem.read_slice(&mut bytes, GuestAddress(region.start)).unwrap();
        assert_eq!(&bytes, b"070701\0");
    }

    #[test]
    fn initramfs_without_room_is_refused_with_its_path() {
        let ram = boot_params::ram_regions(18 << 20).unwrap();
        let kernel = KernelImage::open(file(&bzimage()).path()).unwrap().entry_point();
        let mut cpio = tempfile::NamedTempFile::new().unwrap();
        cpio.write_all(b"070701").unwrap();
        let error = Initramfs::open(cpio.path()).unwrap().place(&ram, &kernel).unwrap_err();
        assert!(matches!(error.reason, KernelErrorReason::Place(_)));
        assert!(error.to_string().starts_with(&cpio.path().display().to_string()));
    }

    #[test]
    fn initramfs_that_is_empty_is_refused() {
        let cpio = tempfile::NamedTempFile::new().unwrap();
        assert!(Initramfs::open(cpio.path()).is_err());
    }
}
