//! Guest memory: reserved, told to KVM, and filled with kernel and boot data.

use std::io;
use std::sync::Arc;

use boot_params::memory::Region;
use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::BuildError;
use crate::kernel::BundleMapping;
use crate::sys;

/// What one entry of the last but one level of x86_64's page tables maps.
const HUGE_PAGE: usize = 2 << 20;
/// To find memory for one region that begins at a multiple of that.
const TRIES: usize = 4;

/// Reserves the plan's RAM; the host gives the pages as the guest touches them.
pub(super) fn reserve(ram: &[Region]) -> Result<Arc<GuestMemoryMmap>, BuildError> {
    let reserved: io::Result<Vec<_>> = ram.iter().map(reserve_region).collect();
    let memory = reserved.and_then(|regions| GuestMemoryMmap::from_regions(regions).map_err(io::Error::other));
    memory.map(Arc::new).map_err(|source| BuildError::Memory {
        mib: ram.iter().map(|region| region.len).sum::<u64>() >> 20,
        source,
    })
}

fn reserve_region(ram: &Region) -> io::Result<GuestRegionMmap> {
    let len = usize::try_from(ram.len).map_err(io::Error::other)?;
    let memory = huge_pages_fit(len)?;
    GuestRegionMmap::new(memory, GuestAddress(ram.start))
        .ok_or_else(|| io::Error::other("it reaches beyond the last address"))
}

/// A mapping that starts where a huge page of the host can. Guest memory starts at multiples of it too, so KVM maps a huge page
/// as one, where it is in one piece on the host; elsewhere it has to map, and the guest to fault in, 512 small ones.
///
/// The kernel places a mapping right below the one before, so one that is as long as the first try is out of place
/// brings the next to the right place, unless another thread comes in between. A machine whose memory is nowhere in
/// place works as well, only slower.
fn huge_pages_fit(len: usize) -> io::Result<MmapRegion> {
    let map = |len| MmapRegion::new(len).map_err(io::Error::other);
    let mut memory = map(len)?;
    for _ in 0..TRIES {
        let misplaced = memory.as_ptr().addr() % HUGE_PAGE;
        if misplaced == 0 {
            break;
        }
        drop(memory);
        let _padding = map(misplaced)?;
        memory = map(len)?;
    }
    Ok(memory)
}

/// Makes every region a memory slot of the VM, from slot 0 on.
pub(super) fn register(vm: &VmFd, mem: &GuestMemoryMmap) -> Result<(), BuildError> {
    sys::register_memory(vm, mem).map_err(BuildError::kvm("take the guest's memory"))
}

/// Maps the bundle's kernel over guest memory.
pub(super) fn map(mem: &GuestMemoryMmap, mapping: &BundleMapping) -> Result<(), BuildError> {
    let failed = |source| BuildError::MapKernel { source };
    let len = usize::try_from(mapping.len).map_err(|error| failed(io::Error::other(error)))?;
    sys::map_over(mem, GuestAddress(mapping.gpa), &mapping.file, mapping.offset, len).map_err(failed)
}

/// Writes the boot data.
pub(super) fn write(mem: &GuestMemoryMmap, blobs: &[boot_params::Blob]) -> Result<(), BuildError> {
    blobs
        .iter()
        .try_for_each(|blob| mem.write_slice(&blob.bytes, GuestAddress(blob.address)))
        .map_err(|error| BuildError::Memory {
            mib: 0,
            source: io::Error::other(error),
        })
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemoryBackend;

    use super::*;

    #[test]
    fn guest_memory_starts_where_a_huge_page_can() {
        let ram = boot_params::ram_regions(4 << 30).unwrap();
        let mem = reserve(&ram).unwrap();
        for region in &ram {
            let start = mem.get_slice(GuestAddress(region.start), 1).unwrap();
            assert_eq!(start.ptr_guard().as_ptr().addr() % HUGE_PAGE, 0, "{region:?}");
        }
    }
}
