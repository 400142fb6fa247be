//! A driver that is never done.

use std::cell::Cell;
use std::rc::Rc;

use vm_memory::bitmap::BS;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
    GuestMemoryRegionBytes, GuestRegionMmap, MemoryRegionAddress, VolatileSlice,
};

use crate::{Descriptor, Guest, SplitRing, descriptor_flags};

/// Guest memory whose driver makes one more useless chain available each time the device looks, as one that runs on
/// another processor can.
pub struct EagerDriver<'a> {
    regions: Vec<EagerRegion<'a>>,
    left: Rc<Cell<u32>>,
}

/// A region of such memory.
pub struct EagerRegion<'a> {
    inner: &'a GuestRegionMmap<()>,
    avail_idx: GuestAddress,
    left: Rc<Cell<u32>>,
}

impl<'a> EagerDriver<'a> {
    /// The chains are malformed. It stops after `chains`, as a test has to end.
    pub fn new(guest: &'a Guest, ring: &SplitRing, chains: u32) -> Self {
        let loops = Descriptor {
            addr: 0,
            len: 4,
            flags: descriptor_flags::NEXT,
            next: 0,
        };
        Self::offering(guest.mem(), ring, chains, loops)
    }

    /// All chains begin with this descriptor.
    pub fn offering(mem: &'a GuestMemoryMmap, ring: &SplitRing, chains: u32, descriptor: Descriptor) -> Self {
        ring.set_descriptor(mem, 0, descriptor);
        for slot in 0..ring.size() {
            ring.set_avail_entry(mem, slot, 0);
        }
        let left = Rc::new(Cell::new(chains));
        let region = |inner| EagerRegion {
            inner,
            avail_idx: GuestAddress(ring.avail_ring() + 2),
            left: Rc::clone(&left),
        };
        Self {
            regions: mem.iter().map(region).collect(),
            left,
        }
    }

    /// How many chains it has not made available yet.
    pub fn left(&self) -> u32 {
        self.left.get()
    }
}

impl<'a> GuestMemoryBackend for EagerDriver<'a> {
    type R = EagerRegion<'a>;

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        self.regions.iter()
    }
}

impl GuestMemoryRegion for EagerRegion<'_> {
    type B = ();

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn start_addr(&self) -> GuestAddress {
        self.inner.start_addr()
    }

    fn bitmap(&self) -> BS<'_, ()> {}

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, ()>>, GuestMemoryError> {
        let looked_at = self.inner.to_region_addr(self.avail_idx) == Some(offset);
        if looked_at && self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            let idx: u16 = self.inner.read_obj(offset)?;
            self.inner.write_obj(idx.wrapping_add(1), offset)?;
        }
        GuestMemoryRegion::get_slice(self.inner, offset, count)
    }
}

impl GuestMemoryRegionBytes for EagerRegion<'_> {}
