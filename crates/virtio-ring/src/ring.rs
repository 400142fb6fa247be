//! The rings of a split virtqueue.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError};

use crate::memory::Nearby;
use crate::walk::{self, Malformed, Table};
use crate::{Chain, RingError};

const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;

/// Both rings start with le16 flags and le16 idx; the entries follow.
const IDX: u64 = 2;
const ENTRIES: u64 = 4;
const AVAIL_ENTRY_LEN: u64 = 2;
const USED_ENTRY_LEN: u64 = 8;

/// The device's side of one split virtqueue.
///
/// Indices that both sides touch are read and written with one atomic 16-bit access each.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    indirect_negotiated: bool,
    /// The driver has enabled it and it did not stop since.
    ready: bool,
    /// The driver's index as last read: entries before it can be taken without another look.
    avail_idx: Wrapping<u16>,
    next_avail: Wrapping<u16>,
    next_used: Wrapping<u16>,
    /// What the driver was last told in used.idx.
    published: Wrapping<u16>,
    /// Chains taken and not yet given back.
    in_flight: u16,
    /// The last entry taken is a chain that the device has, and was not undone yet.
    undoable: bool,
    malformed: Arc<AtomicU64>,
}

impl Ring {
    /// Takes over a queue as the driver configured it, or as it was saved. Whether its addresses are guest memory is
    /// checked on each access; [`QueueT::is_valid`] tells earlier.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        let next_avail = Wrapping(queue.next_avail());
        let next_used = Wrapping(queue.next_used());
        Self {
            indirect_negotiated: true,
            ready: queue.ready() && queue.size().is_power_of_two(),
            avail_idx: next_avail,
            next_avail,
            next_used,
            published: next_used,
            in_flight: (next_avail - next_used).0,
            undoable: false,
            malformed: Arc::default(),
            queue,
        }
    }

    /// Whether VIRTIO_F_INDIRECT_DESC was negotiated. Without it a chain that has an indirect descriptor is malformed
    /// (virtio 1.3, 2.7.5.3.1). A new ring takes them.
    #[must_use]
    pub fn with_indirect(mut self, negotiated: bool) -> Self {
        self.indirect_negotiated = negotiated;
        self
    }

    /// Counts malformed chains on in `counter`, which outlives the ring. Only the first is logged: a driver that resets
    /// its device again and again is one line, not one for each reset.
    #[must_use]
    pub fn with_malformed_counter(mut self, counter: Arc<AtomicU64>) -> Self {
        self.malformed = counter;
        self
    }

    /// The queue with the ring's position, to be saved or to go back to the transport.
    #[must_use]
    pub fn into_queue(mut self) -> Queue {
        self.queue.set_next_avail(self.next_avail.0);
        self.queue.set_next_used(self.next_used.0);
        self.queue
    }

    /// False for a queue that the driver left disabled and for a ring that stopped: both are always empty.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The queue size, in chains.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// How many malformed chains were given back unused, by this ring and those that shared its counter.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// How many chains were taken and not yet given back.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Takes the next chain. False when there is none for now.
    ///
    /// Malformed chains go into the used ring with length 0. At most as many as the queue holds are looked at in one
    /// call, so a driver that keeps adding them cannot keep the device in here.
    ///
    /// # Errors
    /// When the ring itself is broken. It is stopped then: later calls find nothing.
    pub fn pop<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>, chain: &mut Chain) -> Result<bool, RingError> {
        if !self.has_available(mem)? {
            return Ok(false);
        }
        let table = Table {
            addr: GuestAddress(self.queue.desc_table()),
            entries: self.queue.size(),
        };
        while self.next_avail != self.avail_idx {
            let head = self.take_head(mem)?;
            match walk::walk(mem, table, head, self.indirect_negotiated, chain) {
                Ok(()) => {
                    self.undoable = true;
                    return Ok(true);
                }
                Err(reason) => self.give_back_malformed(mem, head, &reason)?,
            }
        }
        Ok(false)
    }

    /// Un-takes the chain that the last [`pop`](Self::pop) returned; the next one returns it again. Only the last, and
    /// only once.
    pub fn undo_pop(&mut self) {
        if self.undoable && self.in_flight > 0 {
            self.undoable = false;
            self.in_flight -= 1;
            self.next_avail -= 1;
        }
    }

    /// Whether [`pop`](Self::pop) would look at a chain.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    #[inline]
    pub fn has_available<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<bool, RingError> {
        if !self.ready {
            return Ok(false);
        }
        if self.next_avail == self.avail_idx {
            self.load_avail_idx(mem)?;
        }
        Ok(self.next_avail != self.avail_idx)
    }

    /// How many chains the driver has made available by now that were not taken.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn available<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<u16, RingError> {
        if !self.ready {
            return Ok(0);
        }
        self.load_avail_idx(mem)?;
        Ok((self.avail_idx - self.next_avail).0)
    }

    /// Puts a chain into the used ring. `len` is the number of bytes written to its writable part. The driver sees it
    /// after [`publish`](Self::publish).
    ///
    /// # Errors
    /// When no chain is out, or the used ring is not in guest memory.
    #[inline]
    pub fn push_used<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        head: u16,
        len: u32,
    ) -> Result<(), RingError> {
        if self.in_flight == 0 || head >= self.queue.size() {
            return Err(RingError::NotPopped { head });
        }
        let at = ENTRIES + u64::from(self.slot(self.next_used)) * USED_ENTRY_LEN;
        let element = u64::from(head) | (u64::from(len) << 32);
        if let Err(error) = mem.write(self.queue.used_ring(), at, element.to_le()) {
            return Err(self.stop(error));
        }
        self.next_used += 1;
        self.in_flight -= 1;
        Ok(())
    }

    /// How many chains were pushed and not published.
    #[must_use]
    pub fn unpublished(&self) -> u16 {
        (self.next_used - self.published).0
    }

    /// Shows the driver all that was pushed, with one store of used.idx. True when it wants an interrupt for that
    /// (virtio 1.3, 2.7.7).
    ///
    /// # Errors
    /// When a ring is not in guest memory.
    pub fn publish<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<bool, RingError> {
        let old = self.published;
        let new = self.next_used;
        if old == new {
            return Ok(false);
        }
        self.store_used(mem, IDX, new.0, Ordering::Release)?;
        self.published = new;
        // The driver writes used_event and then looks at used.idx; we did the reverse. Without the fence both could
        // see the old value, and the interrupt would be lost.
        fence(Ordering::SeqCst);
        if self.queue.event_idx_enabled() {
            let event = self.load_avail(mem, self.used_event(), Ordering::Relaxed)?;
            return Ok(new - event - Wrapping(1) < new - old);
        }
        let flags = self.load_avail(mem, 0, Ordering::Relaxed)?;
        Ok(flags.0 & AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver for a notification when it adds a chain (virtio 1.3, 2.7.10). True when it has added some
    /// meanwhile: no notification may come for those.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn enable_notification<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<bool, RingError> {
        self.enable_notification_after(mem, 0)
    }

    /// [`enable_notification`](Self::enable_notification) for the chain after the first `skip` that the driver adds: those
    /// are not worth a notification yet. Without VIRTIO_F_EVENT_IDX the driver notifies for each.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn enable_notification_after<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        skip: u16,
    ) -> Result<bool, RingError> {
        if !self.ready {
            return Ok(false);
        }
        if self.queue.event_idx_enabled() {
            let event = self.next_avail + Wrapping(skip);
            self.store_used(mem, self.avail_event(), event.0, Ordering::Relaxed)?;
        } else {
            self.store_used(mem, 0, 0, Ordering::Relaxed)?;
        }
        // As in publish: our store must be visible before we look.
        fence(Ordering::SeqCst);
        self.load_avail_idx(mem)?;
        Ok(self.next_avail != self.avail_idx)
    }

    /// Tells the driver that notifications are not needed. A hint: some may still come.
    ///
    /// # Errors
    /// When the used ring is not in guest memory.
    #[inline]
    pub fn disable_notification<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<(), RingError> {
        // With EVENT_IDX the driver notifies once per avail_event, which is left where it was.
        if !self.ready || self.queue.event_idx_enabled() {
            return Ok(());
        }
        self.store_used(mem, 0, USED_F_NO_NOTIFY, Ordering::Relaxed)
    }

    #[inline]
    fn take_head<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<u16, RingError> {
        let at = ENTRIES + u64::from(self.slot(self.next_avail)) * AVAIL_ENTRY_LEN;
        let head = match mem.read::<u16>(self.queue.avail_ring(), at) {
            Ok(head) => u16::from_le(head),
            Err(error) => return Err(self.stop(error)),
        };
        if head >= self.queue.size() {
            self.ready = false;
            return Err(RingError::HeadOutOfRange {
                head,
                size: self.queue.size(),
            });
        }
        self.next_avail += 1;
        self.in_flight += 1;
        self.undoable = false;
        Ok(head)
    }

    #[cold]
    fn give_back_malformed<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        head: u16,
        reason: &Malformed,
    ) -> Result<(), RingError> {
        if self.malformed.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(head, %reason, "malformed descriptor chain given back; further ones are only counted");
        }
        self.push_used(mem, head, 0)
    }

    /// A driver cannot have more chains out than the queue holds, whether we took them already or not.
    fn load_avail_idx<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<(), RingError> {
        // Acquire: the entries and descriptors that the index covers are read after it.
        let idx = self.load_avail(mem, IDX, Ordering::Acquire)?;
        let out = (idx - self.next_used).0;
        if out > self.queue.size() || out < self.in_flight {
            self.ready = false;
            return Err(RingError::Broken {
                avail_idx: idx.0,
                next_used: self.next_used.0,
                size: self.queue.size(),
            });
        }
        self.avail_idx = idx;
        Ok(())
    }

    #[inline]
    fn slot(&self, index: Wrapping<u16>) -> u16 {
        index.0 & self.queue.size().wrapping_sub(1)
    }

    /// Where used_event is in the available ring.
    #[inline]
    fn used_event(&self) -> u64 {
        ENTRIES + u64::from(self.queue.size()) * AVAIL_ENTRY_LEN
    }

    /// Where avail_event is in the used ring.
    #[inline]
    fn avail_event(&self) -> u64 {
        ENTRIES + u64::from(self.queue.size()) * USED_ENTRY_LEN
    }

    #[inline]
    fn load_avail<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        at: u64,
        order: Ordering,
    ) -> Result<Wrapping<u16>, RingError> {
        match mem.load::<u16>(self.queue.avail_ring(), at, order) {
            Ok(value) => Ok(Wrapping(u16::from_le(value))),
            Err(error) => Err(self.stop(error)),
        }
    }

    #[inline]
    fn store_used<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        at: u64,
        value: u16,
        order: Ordering,
    ) -> Result<(), RingError> {
        match mem.store(self.queue.used_ring(), at, value.to_le(), order) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.stop(error)),
        }
    }

    #[cold]
    fn stop(&mut self, error: GuestMemoryError) -> RingError {
        self.ready = false;
        RingError::Memory(error)
    }
}
