//! A driver that is never done.

use std::cell::Cell;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::{Descriptor, Guest, SplitRing, descriptor_flags};

/// Guest memory whose driver makes one more malformed chain available each time the device looks, as one that runs on
/// another processor can.
pub struct EagerDriver<'a> {
    mem: &'a GuestMemoryMmap<()>,
    avail_idx: GuestAddress,
    left: Cell<u32>,
}

impl<'a> EagerDriver<'a> {
    /// It stops after `chains`, as a test has to end.
    pub fn new(guest: &'a Guest, ring: &SplitRing, chains: u32) -> Self {
        let loops = Descriptor {
            addr: 0,
            len: 4,
            flags: descriptor_flags::NEXT,
            next: 0,
        };
        ring.set_descriptor(guest.mem(), 0, loops);
        for slot in 0..ring.size() {
            ring.set_avail_entry(guest.mem(), slot, 0);
        }
        Self {
            mem: guest.mem(),
            avail_idx: GuestAddress(ring.avail_ring() + 2),
            left: Cell::new(chains),
        }
    }

    /// How many chains it has not made available yet.
    pub fn left(&self) -> u32 {
        self.left.get()
    }
}

impl GuestMemoryBackend for EagerDriver<'_> {
    type R = <GuestMemoryMmap<()> as GuestMemoryBackend>::R;

    fn find_region(&self, addr: GuestAddress) -> Option<&Self::R> {
        if addr == self.avail_idx && self.left() > 0 {
            self.left.set(self.left() - 1);
            let idx: u16 = self.mem.read_obj(addr).unwrap();
            self.mem.write_obj(idx.wrapping_add(1), addr).unwrap();
        }
        self.mem.find_region(addr)
    }

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        self.mem.iter()
    }
}
