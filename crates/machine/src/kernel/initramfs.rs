//! The initial RAM file system: a file that goes into guest memory as it is. Its content is between its maker and the kernel.

use std::fs::File;
use std::os::unix::fs::FileExt;

use boot_params::{Region, initramfs, layout};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{EntryPoint, KernelError, KernelErrorReason};

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

impl super::KernelImage {
    /// Puts an initramfs into guest memory, above the kernel and as high as the kernel can take it from. Returns where.
    ///
    /// # Errors
    /// [`KernelError`] if it is empty, cannot be read or has no room.
    pub fn load_initramfs<M: GuestMemoryBackend>(
        &self,
        mem: &M,
        file: &File,
        kernel: &EntryPoint,
    ) -> Result<Region, KernelError> {
        load(mem, file, kernel).map_err(|reason| KernelError {
            path: "the initramfs".into(),
            reason,
        })
    }
}

fn load<M: GuestMemoryBackend>(mem: &M, file: &File, kernel: &EntryPoint) -> Result<Region, KernelErrorReason> {
    let len = file.metadata().map_err(KernelErrorReason::Read)?.len();
    if len == 0 {
        return Err(KernelErrorReason::Damaged("it is empty"));
    }
    let low_end = mem
        .find_region(GuestAddress(0))
        .map_or(0, |region| region.len().min(layout::GAP_START));
    let place = initramfs::place(len, low_end, kernel.initrd_addr_max, kernel.footprint);
    let region = place.map_err(KernelErrorReason::Place)?;
    copy_at(mem, file, region)?;
    Ok(region)
}

/// Reads at offsets, not at the file's position: the descriptor is the caller's and may be shared.
fn copy_at<M: GuestMemoryBackend>(mem: &M, file: &File, to: Region) -> Result<(), KernelErrorReason> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < to.len {
        let left = usize::try_from(to.len - done).unwrap_or(usize::MAX).min(PIECE);
        let part = &mut piece[..left];
        file.read_exact_at(part, done).map_err(KernelErrorReason::Read)?;
        mem.write_slice(part, GuestAddress(to.start + done))
            .map_err(|error| KernelErrorReason::Load(error.to_string()))?;
        done += left as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelImage;
    use crate::kernel::test_images::{bzimage, file};
    use vm_memory::GuestMemoryMmap;

    fn loaded(mem_bytes: usize, content: &[u8]) -> (GuestMemoryMmap, Result<Region, KernelError>) {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), mem_bytes)]).unwrap();
        let kernel = KernelImage::open(file(&bzimage()).path()).unwrap();
        let cpio = tempfile::tempfile().unwrap();
        cpio.write_all_at(content, 0).unwrap();
        let region = kernel.load_initramfs(&mem, &cpio, &kernel.entry_point());
        (mem, region)
    }

    #[test]
    fn initramfs_goes_to_the_end_of_low_memory() {
        let content: Vec<u8> = (0..PIECE + 5).map(|i| i.to_le_bytes()[1]).collect();
        let (mem, region) = loaded(64 << 20, &content);
        let region = region.unwrap();
        assert_eq!(region, Region::new((62 << 20) + 0xf_f000, content.len() as u64));
        let mut bytes = vec![0; content.len()];
        mem.read_slice(&mut bytes, GuestAddress(region.start)).unwrap();
        assert!(bytes == content);
    }

    #[test]
    fn initramfs_without_room_is_refused() {
        let error = loaded(18 << 20, b"070701").1.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the initramfs cannot be placed in the guest's memory"),
            "{error}"
        );
    }

    #[test]
    fn initramfs_that_is_empty_is_refused() {
        assert!(loaded(64 << 20, b"").1.is_err());
    }
}
