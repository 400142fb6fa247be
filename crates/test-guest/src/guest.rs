//! Guest memory and buffers in it.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::SplitRing;

/// What the driver puts into a descriptor: a piece of guest memory and who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes, rather than reads.
    pub writable: bool,
}

impl Buffer {
    /// A buffer that the device reads.
    #[must_use]
    pub fn readable(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: false,
        }
    }

    /// A buffer that the device writes.
    #[must_use]
    pub fn writable(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: true,
        }
    }
}

/// Guest memory with a bump allocator. Nothing is ever freed.
#[derive(Clone, Debug)]
pub struct Guest {
    memory: Arc<GuestMemoryMmap<()>>,
    next: u64,
}

impl Guest {
    /// One region of `len` bytes at address 0. The allocator starts at 4 KiB, so that no buffer has address 0.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self::with_regions(&[(0, len)])
    }

    /// Regions of (address, length in bytes), in ascending order. The allocator runs through them in order, skipping
    /// the gaps, so a buffer is in one region unless two touch.
    ///
    /// # Panics
    /// When they overlap or are out of order.
    #[must_use]
    pub fn with_regions(regions: &[(u64, usize)]) -> Self {
        let ranges: Vec<_> = regions.iter().map(|&(start, len)| (GuestAddress(start), len)).collect();
        let memory = GuestMemoryMmap::from_ranges(&ranges).expect("regions in order and apart");
        let start = regions.first().map_or(0, |&(start, _)| start);
        Self {
            memory: Arc::new(memory),
            next: start.max(0x1000),
        }
    }

    /// The memory, as a device takes it.
    #[must_use]
    pub fn mem(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    /// The memory, shared.
    #[must_use]
    pub fn shared_mem(&self) -> Arc<GuestMemoryMmap<()>> {
        Arc::clone(&self.memory)
    }

    /// The address of `len` fresh bytes, all zero, aligned to `align` (a power of two).
    ///
    /// # Panics
    /// When there is no room.
    pub fn alloc(&mut self, len: usize, align: u64) -> u64 {
        let mut at = self.next.next_multiple_of(align);
        loop {
            if self.memory.check_range(GuestAddress(at), len.max(1)) {
                self.next = at + len as u64;
                return at;
            }
            let later = self
                .memory
                .iter()
                .map(|region| region.start_addr().0)
                .find(|&start| start > at);
            at = later.expect("guest memory is full").next_multiple_of(align);
        }
    }

    /// A ring of `size` descriptors in fresh memory.
    pub fn ring(&mut self, size: u16) -> SplitRing {
        let base = self.alloc(SplitRing::footprint(size), 4096);
        SplitRing::new(base, size)
    }

    /// A buffer that holds `bytes` for the device to read.
    ///
    /// # Panics
    /// When there is no room.
    pub fn readable(&mut self, bytes: &[u8]) -> Buffer {
        let addr = self.alloc(bytes.len(), 1);
        self.write(addr, bytes);
        Buffer::readable(
            addr,
            u32::try_from(bytes.len()).expect("a buffer is shorter than 4 GiB"),
        )
    }

    /// `bytes` in buffers that are not adjacent, cut at each of `cuts` (ascending). Equal cuts give empty buffers.
    ///
    /// # Panics
    /// When a cut is out of order or behind the end.
    pub fn readable_pieces(&mut self, bytes: &[u8], cuts: &[usize]) -> Vec<Buffer> {
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(bytes.len()));
        let mut pieces = Vec::new();
        for (start, end) in starts.zip(ends) {
            pieces.push(self.readable(&bytes[start..end]));
            // A gap of foreign bytes shows a device that runs over the end of a buffer.
            let gap = self.alloc(3, 1);
            self.write(gap, &[0xee; 3]);
        }
        pieces
    }

    /// `len` bytes for the device to write, all zero.
    ///
    /// # Panics
    /// When there is no room.
    pub fn writable(&mut self, len: usize) -> Buffer {
        let addr = self.alloc(len, 1);
        Buffer::writable(addr, u32::try_from(len).expect("a buffer is shorter than 4 GiB"))
    }

    /// Buffers of the given lengths for the device to write, not adjacent.
    pub fn writable_pieces(&mut self, lens: &[usize]) -> Vec<Buffer> {
        lens.iter()
            .map(|&len| {
                let piece = self.writable(len);
                self.alloc(3, 1);
                piece
            })
            .collect()
    }

    /// What is in a buffer now.
    #[must_use]
    pub fn bytes_of(&self, buffer: Buffer) -> Vec<u8> {
        self.read(buffer.addr, buffer.len as usize)
    }

    /// What is in several buffers now, joined.
    #[must_use]
    pub fn bytes_of_all(&self, buffers: &[Buffer]) -> Vec<u8> {
        buffers.iter().flat_map(|&buffer| self.bytes_of(buffer)).collect()
    }

    /// `len` bytes at `addr`.
    ///
    /// # Panics
    /// When they are not guest memory.
    #[must_use]
    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(addr))
            .expect("guest memory");
        bytes
    }

    /// Writes `bytes` to `addr`.
    ///
    /// # Panics
    /// When that is not guest memory.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(addr))
            .expect("guest memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alloc_at_the_end_of_a_region_continues_in_the_next() {
        let mut guest = Guest::with_regions(&[(0, 0x2000), (0x10000, 0x1000)]);

        assert_eq!(guest.alloc(0xf00, 1), 0x1000);
        assert_eq!(guest.alloc(0x200, 1), 0x10000);
    }

    #[test]
    fn readable_pieces_hold_the_bytes_in_order_with_gaps_between() {
        let mut guest = Guest::new(0x4000);

        let pieces = guest.readable_pieces(b"abcdef", &[1, 1, 4]);

        assert_eq!(pieces.iter().map(|piece| piece.len).collect::<Vec<_>>(), [1, 0, 3, 2]);
        assert_eq!(guest.bytes_of_all(&pieces), b"abcdef");
        assert_ne!(pieces[2].addr + u64::from(pieces[2].len), pieces[3].addr);
    }
}
