//! Guest memory: reserved, told to KVM, and filled with kernel and boot data.

use std::io;
use std::sync::Arc;

use boot_params::memory::Region;
use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::BuildError;
use crate::kernel::BundleMapping;
use crate::sys;

/// Reserves the plan's RAM; the host gives the pages as the guest touches them.
pub(super) fn reserve(ram: &[Region]) -> Result<Arc<GuestMemoryMmap>, BuildError> {
    let ranges: Result<Vec<_>, _> = ram
        .iter()
        .map(|region| usize::try_from(region.len).map(|len| (GuestAddress(region.start), len)))
        .collect();
    let failed = |source| BuildError::Memory {
        mib: ram.iter().map(|region| region.len).sum::<u64>() >> 20,
        source,
    };
    let ranges = ranges.map_err(|error| failed(io::Error::other(error)))?;
    GuestMemoryMmap::from_ranges(&ranges)
        .map(Arc::new)
        .map_err(|error| failed(io::Error::other(error)))
}

/// Makes every region a memory slot of the VM; gives the next free slot.
pub(super) fn register(vm: &VmFd, mem: &GuestMemoryMmap) -> Result<u32, BuildError> {
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
