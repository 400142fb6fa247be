//! Guest memory, one contiguous part at a time.
//!
//! vm-memory's own iterator over a range panics when a region returns a slice of another length than was asked for
//! (the class of CVE-2023-41051). Memory implementations are the monitor's choice, so here that is an error.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use vm_memory::bitmap::MS;
use vm_memory::{
    Address, AtomicAccess, ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
    MemoryRegionAddress, VolatileMemory, VolatileSlice,
};

type Result<T> = std::result::Result<T, GuestMemoryError>;

/// Guest memory that first looks where it found the last address. A ring and its buffers mostly lie in one region, and
/// to search for it costs more than what is done there.
///
/// Wrap guest memory for as long as one thing after the other is done with a ring and its chains:
///
/// ```
/// # use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
/// let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
/// let mem = virtio_ring::Nearby::new(&mem);
/// assert!(mem.find_region(GuestAddress(0xfff)).is_some());
/// ```
pub struct Nearby<'a, M: GuestMemoryBackend> {
    mem: &'a M,
    last: Cell<Option<Found<'a, M::R>>>,
}

/// A region, the address at which it starts and its length in bytes.
struct Found<'a, R> {
    region: &'a R,
    start: u64,
    len: u64,
}

impl<R> Clone for Found<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Found<'_, R> {}

impl<'a, M: GuestMemoryBackend> Nearby<'a, M> {
    /// Wraps guest memory.
    #[inline]
    pub fn new(mem: &'a M) -> Self {
        Self {
            mem,
            last: Cell::new(None),
        }
    }

    /// The region that has `addr`, how far into it that is, and how many bytes it has from there on.
    #[inline]
    fn find(&self, addr: GuestAddress) -> Option<(&'a M::R, u64, u64)> {
        if let Some(found) = self.last.get() {
            let offset = addr.0.wrapping_sub(found.start);
            if offset < found.len {
                return Some((found.region, offset, found.len - offset));
            }
        }
        self.search(addr)
    }

    /// Out of line: what is done with an address that is near keeps its registers so.
    #[cold]
    #[inline(never)]
    fn search(&self, addr: GuestAddress) -> Option<(&'a M::R, u64, u64)> {
        let region = self.mem.find_region(addr)?;
        let (start, len) = (region.start_addr().0, region.len());
        self.last.set(Some(Found { region, start, len }));
        let offset = addr.0.wrapping_sub(start);
        (offset < len).then(|| (region, offset, len - offset))
    }

    /// `len` bytes at `addr`, if they are in one region and not none.
    #[inline]
    pub(crate) fn piece(&self, addr: GuestAddress, len: usize) -> Option<VolatileSlice<'a, MS<'a, M>>> {
        match self.find(addr) {
            Some((region, offset, rest)) if rest >= len as u64 => slice::<M>(region, offset, len).ok(),
            _ => None,
        }
    }

    /// `T` at `addr`, if it is in one region.
    #[inline]
    fn place<T>(&self, addr: GuestAddress) -> Result<Option<VolatileSlice<'a, MS<'a, M>>>> {
        match self.find(addr) {
            Some((region, offset, rest)) if rest >= size_of::<T>() as u64 => {
                slice::<M>(region, offset, size_of::<T>()).map(Some)
            }
            Some(_) => Ok(None),
            None => Err(GuestMemoryError::InvalidGuestAddress(addr)),
        }
    }

    /// Whether all of `len` bytes at `addr` are guest memory.
    #[inline]
    pub(crate) fn contain(&self, addr: GuestAddress, len: u32) -> bool {
        match self.find(addr) {
            Some((_, _, rest)) if u64::from(len) <= rest => len > 0,
            Some(_) => self.contain_across(addr, len),
            None => false,
        }
    }

    /// The same where one region is not enough: others may follow it without a gap.
    #[cold]
    fn contain_across(&self, addr: GuestAddress, len: u32) -> bool {
        let Some(last) = u64::from(len)
            .checked_sub(1)
            .and_then(|distance| addr.checked_add(distance))
        else {
            return false;
        };
        let mut at = addr;
        while let Some((region, ..)) = self.find(at) {
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

    /// One atomic access at `base + offset`: the other side may write the same value at any time.
    #[inline]
    pub(crate) fn load<T: AtomicAccess>(&self, base: u64, offset: u64, order: Ordering) -> Result<T> {
        match self.place::<T>(sum(base, offset)?)? {
            Some(place) => Ok(place.load(0, order)?),
            None => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }

    /// One atomic access at `base + offset`: the other side may read the same value at any time.
    #[inline]
    pub(crate) fn store<T: AtomicAccess>(&self, base: u64, offset: u64, value: T, order: Ordering) -> Result<()> {
        match self.place::<T>(sum(base, offset)?)? {
            Some(place) => Ok(place.store(value, 0, order)?),
            None => Err(GuestMemoryError::InvalidBackendAddress),
        }
    }

    /// A copy of the value at `base + offset`, which needs no alignment and may span regions.
    #[inline]
    pub(crate) fn read<T: ByteValued>(&self, base: u64, offset: u64) -> Result<T> {
        let addr = sum(base, offset)?;
        if let Some(place) = self.place::<T>(addr)? {
            return Ok(place.get_ref::<T>(0)?.load());
        }
        let mut value = T::zeroed();
        self.read_parts(addr, value.as_mut_slice())?;
        Ok(value)
    }

    /// Writes the value to `base + offset`, which needs no alignment and may span regions.
    #[inline]
    pub(crate) fn write<T: ByteValued>(&self, base: u64, offset: u64, value: T) -> Result<()> {
        let addr = sum(base, offset)?;
        if let Some(place) = self.place::<T>(addr)? {
            place.get_ref::<T>(0)?.store(value);
            return Ok(());
        }
        self.write_parts(addr, value.as_slice())
    }

    #[cold]
    fn read_parts(&self, addr: GuestAddress, buf: &mut [u8]) -> Result<()> {
        let mut at = addr;
        let mut rest = buf;
        while !rest.is_empty() {
            let part = first_part(self.mem, at, rest.len())?;
            let (now, later) = rest.split_at_mut(part.len());
            part.copy_to(now);
            at = advance(at, now.len(), later.len())?;
            rest = later;
        }
        Ok(())
    }

    #[cold]
    fn write_parts(&self, addr: GuestAddress, buf: &[u8]) -> Result<()> {
        let mut at = addr;
        let mut rest = buf;
        while !rest.is_empty() {
            let part = first_part(self.mem, at, rest.len())?;
            let (now, later) = rest.split_at(part.len());
            part.copy_from(now);
            at = advance(at, now.len(), later.len())?;
            rest = later;
        }
        Ok(())
    }
}

/// The memory stays as it is; only the place where a search begins changes.
impl<M: GuestMemoryBackend> GuestMemoryBackend for Nearby<'_, M> {
    type R = M::R;

    fn num_regions(&self) -> usize {
        self.mem.num_regions()
    }

    #[inline]
    fn find_region(&self, addr: GuestAddress) -> Option<&M::R> {
        self.find(addr).map(|(region, ..)| region)
    }

    fn iter(&self) -> impl Iterator<Item = &M::R> {
        self.mem.iter()
    }
}

impl<M: GuestMemoryBackend> std::fmt::Debug for Nearby<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.last.get().map(|found| (found.start, found.len));
        f.debug_struct("Nearby").field("last", &last).finish_non_exhaustive()
    }
}

/// The first contiguous part of `len` bytes at `addr`: all of them, or what the region has. `len` is not 0.
#[inline]
pub(crate) fn first_part<M: GuestMemoryBackend>(
    mem: &M,
    addr: GuestAddress,
    len: usize,
) -> Result<VolatileSlice<'_, MS<'_, M>>> {
    let outside = || GuestMemoryError::InvalidGuestAddress(addr);
    let region = mem.find_region(addr).ok_or_else(outside)?;
    let offset = addr.0.wrapping_sub(region.start_addr().0);
    let rest = region.len().checked_sub(offset).ok_or_else(outside)?;
    slice::<M>(region, offset, len.min(usize::try_from(rest).unwrap_or(usize::MAX)))
}

/// `len` bytes of a region, and no fewer. `len` is not 0.
#[inline]
fn slice<M: GuestMemoryBackend>(region: &M::R, offset: u64, len: usize) -> Result<VolatileSlice<'_, MS<'_, M>>> {
    let slice = region.get_slice(MemoryRegionAddress(offset), len)?;
    if len == 0 || slice.len() != len {
        return Err(GuestMemoryError::PartialBuffer {
            expected: len,
            completed: slice.len(),
        });
    }
    Ok(slice)
}

#[inline]
fn sum(base: u64, offset: u64) -> Result<GuestAddress> {
    base.checked_add(offset)
        .map(GuestAddress)
        .ok_or(GuestMemoryError::GuestAddressOverflow)
}

/// `addr + by`, which may only wrap when nothing is `left`.
fn advance(addr: GuestAddress, by: usize, left: usize) -> Result<GuestAddress> {
    match addr.checked_add(by as u64) {
        Some(next) => Ok(next),
        None if left == 0 => Ok(addr),
        None => Err(GuestMemoryError::GuestAddressOverflow),
    }
}
