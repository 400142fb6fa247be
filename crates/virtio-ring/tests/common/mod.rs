//! What the tests share: a device's ring over a ring that the driver laid out.
#![allow(dead_code, reason = "each test file uses a part")]

use test_guest::{Guest, SplitRing};
use virtio_queue::{Queue, QueueT};
use virtio_ring::{Chain, Nearby, Ring};
use vm_memory::GuestAddress;

/// The queue that a driver would configure for `ring`, with both indices at `start`.
pub(crate) fn queue_at(ring: &SplitRing, start: u16) -> Queue {
    let mut queue = Queue::new(ring.size()).unwrap();
    queue
        .try_set_desc_table_address(GuestAddress(ring.desc_table()))
        .unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(ring.avail_ring()))
        .unwrap();
    queue.try_set_used_ring_address(GuestAddress(ring.used_ring())).unwrap();
    queue.set_event_idx(ring.event_idx());
    queue.set_next_avail(start);
    queue.set_next_used(start);
    queue.set_ready(true);
    queue
}

pub(crate) fn device_ring(ring: &SplitRing) -> Ring {
    Ring::new(queue_at(ring, 0))
}

/// Both sides of a queue of `size`.
pub(crate) struct Pair {
    pub(crate) guest: Guest,
    pub(crate) driver: SplitRing,
    pub(crate) device: Ring,
    pub(crate) chain: Chain,
}

impl Pair {
    pub(crate) fn new(size: u16) -> Self {
        Self::with(size, |driver| driver)
    }

    pub(crate) fn with_event_idx(size: u16) -> Self {
        Self::with(size, SplitRing::with_event_idx)
    }

    fn with(size: u16, configure: impl FnOnce(SplitRing) -> SplitRing) -> Self {
        let mut guest = Guest::new(0x10_0000);
        let driver = configure(guest.ring(size));
        let device = device_ring(&driver);
        Self {
            guest,
            driver,
            device,
            chain: Chain::new(),
        }
    }

    /// The driver offers one readable byte.
    pub(crate) fn offer(&mut self) -> u16 {
        let buffer = self.guest.readable(&[7]);
        self.driver.add(self.guest.mem(), &[buffer]).unwrap()
    }

    pub(crate) fn pop(&mut self) -> Option<u16> {
        let found = self
            .device
            .pop(&Nearby::new(self.guest.mem()), &mut self.chain)
            .unwrap();
        found.then(|| self.chain.head())
    }

    pub(crate) fn push(&mut self, head: u16, len: u32) {
        self.device
            .push_used(&Nearby::new(self.guest.mem()), head, len)
            .unwrap();
    }

    pub(crate) fn publish(&mut self) -> bool {
        self.device.publish(&Nearby::new(self.guest.mem())).unwrap()
    }

    /// Offers, takes and gives back one chain; returns whether an interrupt is wanted.
    pub(crate) fn round_trip(&mut self) -> bool {
        self.offer();
        let head = self.pop().unwrap();
        self.push(head, 0);
        self.publish()
    }

    /// Used elements that the driver sees, as (head, length).
    pub(crate) fn used(&mut self) -> Vec<(u32, u32)> {
        self.driver
            .poll_all_used(self.guest.mem())
            .into_iter()
            .map(|used| (used.id, used.len))
            .collect()
    }
}
