//! Guest memory, one contiguous part at a time.
//!
//! vm-memory's own iterator over a range panics when a region returns a slice of another length than was asked for
//! (the class of CVE-2023-41051). Memory implementations are the monitor's choice, so here that is an error.

use std::sync::atomic::Ordering;

use vm_memory::bitmap::MS;
use vm_memory::{
    Address, AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, VolatileSlice,
};

type Result<T> = std::result::Result<T, GuestMemoryError>;

/// The first contiguous part of `len` bytes at `addr`: all of them, or what the region has. `len` is not 0.
pub(crate) fn first_part<M: GuestMemoryBackend>(
    mem: &M,
    addr: GuestAddress,
    len: usize,
) -> Result<VolatileSlice<'_, MS<'_, M>>> {
    let outside = || GuestMemoryError::InvalidGuestAddress(addr);
    let region = mem.find_region(addr).ok_or_else(outside)?;
    let start = region.to_region_addr(addr).ok_or_else(outside)?;
    let rest = region.len().saturating_sub(start.raw_value());
    let expected = len.min(usize::try_from(rest).unwrap_or(usize::MAX));
    let slice = region.get_slice(start, expected)?;
    if expected == 0 || slice.len() != expected {
        return Err(GuestMemoryError::PartialBuffer {
            expected,
            completed: slice.len(),
        });
    }
    Ok(slice)
}

/// Whether all of `len` bytes at `addr` are guest memory. Regions may follow one another without a gap.
pub(crate) fn contains<M: GuestMemoryBackend>(mem: &M, addr: GuestAddress, len: u32) -> bool {
    let Some(last) = u64::from(len)
        .checked_sub(1)
        .and_then(|distance| addr.checked_add(distance))
    else {
        return false;
    };
    let mut at = addr;
    while let Some(region) = mem.find_region(at) {
        let region_last = region.last_addr();
        if last <= region_last {
            return true;
        }
        match region_last.checked_add(1) {
            Some(next) if next > at => at = next,
            _ => return false,
        }
    }
    false
}

/// One atomic access: the other side may write the same value at any time.
pub(crate) fn load<M: GuestMemoryBackend, T: AtomicAccess>(mem: &M, addr: GuestAddress, order: Ordering) -> Result<T> {
    Ok(first_part(mem, addr, size_of::<T>())?.load(0, order)?)
}

/// One atomic access: the other side may read the same value at any time.
pub(crate) fn store<M: GuestMemoryBackend, T: AtomicAccess>(
    mem: &M,
    addr: GuestAddress,
    value: T,
    order: Ordering,
) -> Result<()> {
    Ok(first_part(mem, addr, size_of::<T>())?.store(value, 0, order)?)
}

/// Copies `buf.len()` bytes out of guest memory.
pub(crate) fn read<M: GuestMemoryBackend>(mem: &M, addr: GuestAddress, buf: &mut [u8]) -> Result<()> {
    let mut at = addr;
    let mut rest = buf;
    while !rest.is_empty() {
        let part = first_part(mem, at, rest.len())?;
        let (now, later) = rest.split_at_mut(part.len());
        part.read_slice(now, 0)?;
        at = advance(at, now.len(), later.len())?;
        rest = later;
    }
    Ok(())
}

/// Copies `buf` into guest memory.
pub(crate) fn write<M: GuestMemoryBackend>(mem: &M, addr: GuestAddress, buf: &[u8]) -> Result<()> {
    let mut at = addr;
    let mut rest = buf;
    while !rest.is_empty() {
        let part = first_part(mem, at, rest.len())?;
        let (now, later) = rest.split_at(part.len());
        part.write_slice(now, 0)?;
        at = advance(at, now.len(), later.len())?;
        rest = later;
    }
    Ok(())
}

/// `addr + by`, which may only wrap when nothing is `left`.
pub(crate) fn advance(addr: GuestAddress, by: usize, left: usize) -> Result<GuestAddress> {
    match addr.checked_add(by as u64) {
        Some(next) => Ok(next),
        None if left == 0 => Ok(addr),
        None => Err(GuestMemoryError::GuestAddressOverflow),
    }
}
