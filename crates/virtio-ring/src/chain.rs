//! One descriptor chain as two byte streams.

use vm_memory::bitmap::MS;
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

use crate::ChainError;
use crate::memory;

/// A buffer of the driver: address and length in bytes. It is in guest memory and not empty.
pub type Segment = (GuestAddress, u32);

/// A descriptor chain: first the bytes that the driver wrote for the device, then room for the device to write.
///
/// Filled by [`Ring::pop`](crate::Ring::pop); meant to be reused. Between the two calls it owns nothing in guest
/// memory: addresses were checked when the chain was taken, bytes are read when they are asked for.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    segments: Vec<Segment>,
    readable_segments: usize,
    readable_len: u32,
    writable_len: u32,
}

impl Chain {
    /// An empty chain, to be filled by [`Ring::pop`](crate::Ring::pop).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the first descriptor, which [`Ring::push_used`](crate::Ring::push_used) takes.
    #[must_use]
    #[inline]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// How many bytes the device may read.
    #[must_use]
    #[inline]
    pub fn readable_len(&self) -> usize {
        self.readable_len as usize
    }

    /// How many bytes the device may write.
    #[must_use]
    #[inline]
    pub fn writable_len(&self) -> usize {
        self.writable_len as usize
    }

    /// The buffers to read from, in order, empty ones left out.
    #[must_use]
    #[inline]
    pub fn readable_segments(&self) -> &[Segment] {
        self.segments.get(..self.readable_segments).unwrap_or_default()
    }

    /// The buffers to write to, in order, empty ones left out.
    #[must_use]
    #[inline]
    pub fn writable_segments(&self) -> &[Segment] {
        self.segments.get(self.readable_segments..).unwrap_or_default()
    }

    /// Fills `buf` from the readable bytes at `offset`. The driver can change them at any time: read a header once and
    /// decide on the copy.
    ///
    /// # Errors
    /// When fewer than `buf.len()` bytes are there; `buf` is then untouched. When guest memory fails.
    #[inline]
    pub fn read_at<M: GuestMemoryBackend>(&self, mem: &M, offset: usize, buf: &mut [u8]) -> Result<(), ChainError> {
        check_range(offset, buf.len(), self.readable_len())?;
        if let Some(slice) = self.readable_slice(mem, offset, buf.len()) {
            slice.copy_to(buf);
            return Ok(());
        }
        let mut slices = self.readable_slices(mem, offset, buf.len());
        let mut rest = buf;
        while let Some(slice) = slices.next_part()? {
            let (now, later) = rest.split_at_mut(slice.len().min(rest.len()));
            slice.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    /// Writes `buf` to the writable bytes at `offset`.
    ///
    /// # Errors
    /// When there is no room for all of `buf`; nothing is written then. When guest memory fails.
    #[inline]
    pub fn write_at<M: GuestMemoryBackend>(&self, mem: &M, offset: usize, buf: &[u8]) -> Result<(), ChainError> {
        check_range(offset, buf.len(), self.writable_len())?;
        if let Some(slice) = self.writable_slice(mem, offset, buf.len()) {
            slice.copy_from(buf);
            return Ok(());
        }
        let mut slices = self.writable_slices(mem, offset, buf.len());
        let mut rest = buf;
        while let Some(slice) = slices.next_part()? {
            let (now, later) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(now);
            rest = later;
        }
        Ok(())
    }

    /// `len` readable bytes from `offset` on as one slice, if they are in one buffer and one memory region, as nearly
    /// always, and not none. Where there is no such slice, [`readable_slices`](Self::readable_slices) tells more.
    #[inline]
    pub fn readable_slice<'a, M: GuestMemoryBackend>(
        &self,
        mem: &'a M,
        offset: usize,
        len: usize,
    ) -> Option<VolatileSlice<'a, MS<'a, M>>> {
        whole_slice(mem, self.readable_segments(), offset, len)
    }

    /// The same of the writable bytes; see [`writable_slices`](Self::writable_slices).
    #[inline]
    pub fn writable_slice<'a, M: GuestMemoryBackend>(
        &self,
        mem: &'a M,
        offset: usize,
        len: usize,
    ) -> Option<VolatileSlice<'a, MS<'a, M>>> {
        whole_slice(mem, self.writable_segments(), offset, len)
    }

    /// At most `limit` readable bytes from `offset` on, as slices of contiguous host memory.
    #[inline]
    pub fn readable_slices<'a, M: GuestMemoryBackend>(
        &'a self,
        mem: &'a M,
        offset: usize,
        limit: usize,
    ) -> Slices<'a, M> {
        // What is writable comes after all that is readable, so the limit keeps it out.
        let left = self.readable_len().saturating_sub(offset);
        Slices::new(mem, &self.segments, offset, limit.min(left))
    }

    /// At most `limit` writable bytes from `offset` on, as slices of contiguous host memory.
    #[inline]
    pub fn writable_slices<'a, M: GuestMemoryBackend>(
        &'a self,
        mem: &'a M,
        offset: usize,
        limit: usize,
    ) -> Slices<'a, M> {
        Slices::new(mem, self.writable_segments(), offset, limit)
    }

    #[inline]
    pub(crate) fn restart(&mut self, head: u16) {
        self.head = head;
        self.segments.clear();
        self.readable_segments = 0;
        self.readable_len = 0;
        self.writable_len = 0;
    }

    #[inline]
    pub(crate) fn has_writable(&self) -> bool {
        self.writable_len > 0
    }

    /// False when the chain would hold more bytes than a used element can tell, which readable and writable ones
    /// together never do.
    #[must_use]
    #[inline]
    pub(crate) fn append(&mut self, addr: GuestAddress, len: u32, writable: bool) -> bool {
        if len > u32::MAX - self.readable_len - self.writable_len {
            return false;
        }
        if writable {
            self.writable_len += len;
        } else {
            self.readable_len += len;
            self.readable_segments += 1;
        }
        self.segments.push((addr, len));
        true
    }
}

#[inline]
fn check_range(offset: usize, len: usize, available: usize) -> Result<(), ChainError> {
    match offset.checked_add(len) {
        Some(end) if end <= available => Ok(()),
        _ => Err(ChainError::OutOfRange { offset, len, available }),
    }
}

#[inline]
fn whole_slice<'a, M: GuestMemoryBackend>(
    mem: &'a M,
    segments: &[Segment],
    offset: usize,
    len: usize,
) -> Option<VolatileSlice<'a, MS<'a, M>>> {
    let mut offset = offset;
    for &(addr, segment_len) in segments {
        let segment_len = segment_len as usize;
        if let Some(room) = segment_len.checked_sub(offset).filter(|&room| room > 0) {
            if len == 0 || len > room {
                return None;
            }
            // A segment does not pass the end of the address space, or it would not be in the chain.
            let at = GuestAddress(addr.0.wrapping_add(offset as u64));
            let slice = memory::first_part(mem, at, len).ok()?;
            return (slice.len() == len).then_some(slice);
        }
        offset -= segment_len;
    }
    None
}

/// Contiguous parts of a chain's bytes. A buffer that spans two memory regions comes as two. After an error there is
/// nothing more.
#[derive(Debug)]
pub struct Slices<'a, M> {
    mem: &'a M,
    segments: std::slice::Iter<'a, Segment>,
    at: GuestAddress,
    left_in_segment: usize,
    left: usize,
}

impl<'a, M: GuestMemoryBackend> Slices<'a, M> {
    #[inline]
    fn new(mem: &'a M, segments: &'a [Segment], offset: usize, limit: usize) -> Self {
        let mut slices = Self {
            mem,
            segments: segments.iter(),
            at: GuestAddress(0),
            left_in_segment: 0,
            left: limit,
        };
        slices.skip_bytes(offset);
        slices
    }

    #[inline]
    fn skip_bytes(&mut self, mut offset: usize) {
        for &(addr, len) in self.segments.by_ref() {
            let len = len as usize;
            if offset < len {
                self.at = GuestAddress(addr.0.wrapping_add(offset as u64));
                self.left_in_segment = len - offset;
                return;
            }
            offset -= len;
        }
    }

    #[inline]
    fn next_part(&mut self) -> Result<Option<VolatileSlice<'a, MS<'a, M>>>, ChainError> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.left_in_segment == 0 {
            let Some(&(addr, len)) = self.segments.next() else {
                return Ok(None);
            };
            self.at = addr;
            self.left_in_segment = len as usize;
        }
        let part = memory::first_part(self.mem, self.at, self.left_in_segment.min(self.left))?;
        self.left_in_segment -= part.len();
        self.left -= part.len();
        // A segment does not pass the end of the address space, or it would not be in the chain.
        self.at = GuestAddress(self.at.0.wrapping_add(part.len() as u64));
        Ok(Some(part))
    }
}

impl<'a, M: GuestMemoryBackend> Iterator for Slices<'a, M> {
    type Item = Result<VolatileSlice<'a, MS<'a, M>>, ChainError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let part = self.next_part();
        if part.is_err() {
            self.left = 0;
        }
        part.transpose()
    }
}

impl<M: GuestMemoryBackend> std::iter::FusedIterator for Slices<'_, M> {}
