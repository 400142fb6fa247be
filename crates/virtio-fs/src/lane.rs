//! One ring and what the driver was not shown of it yet.

use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;

use crate::hold::Finished;

/// Who waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The driver: it is shown at the end of the batch.
    Yes,
    /// Nobody: it may be shown later.
    No,
}

/// A ring with the count of its completions that were not published.
pub(crate) struct Lane {
    ring: Ring,
    /// Taken from the ring and put off: the next one, whose descriptors are not looked at a second time.
    next: Chain,
    is_put_off: bool,
    finished: Finished,
    /// Malformed chains that the ring had given back by itself when it was looked at last.
    malformed: u64,
    /// The driver was asked for a notification of the next chain, and no chain was there then.
    asked: bool,
}

impl Lane {
    pub(crate) fn new(ring: Ring) -> Self {
        Self {
            malformed: ring.malformed(),
            ring,
            next: Chain::new(),
            is_put_off: false,
            finished: Finished::default(),
            asked: false,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ring.is_ready()
    }

    pub(crate) fn size(&self) -> u16 {
        self.ring.size()
    }

    pub(crate) fn holds_back(&self) -> bool {
        self.finished.held > 0
    }

    pub(crate) fn pop<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        chain: &mut Chain,
    ) -> Result<bool, RingError> {
        if std::mem::take(&mut self.is_put_off) {
            std::mem::swap(chain, &mut self.next);
            return Ok(true);
        }
        self.ring.pop(mem, chain)
    }

    /// The chain that was taken last is the next one again.
    pub(crate) fn put_off(&mut self, chain: &mut Chain) {
        std::mem::swap(chain, &mut self.next);
        self.is_put_off = true;
    }

    pub(crate) fn give_back<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        head: u16,
        written: u32,
        awaited: Awaited,
    ) -> Result<(), RingError> {
        self.ring.push_used(mem, head, written)?;
        let count = match awaited {
            Awaited::Yes => &mut self.finished.awaited,
            Awaited::No => &mut self.finished.held,
        };
        *count = count.saturating_add(1);
        Ok(())
    }

    /// How many malformed chains the ring has given back since this was asked last. They cost time too, and the driver
    /// may wait for them.
    pub(crate) fn take_malformed(&mut self) -> u16 {
        let before = std::mem::replace(&mut self.malformed, self.ring.malformed());
        let count = u16::try_from(self.malformed.saturating_sub(before)).unwrap_or(u16::MAX);
        self.finished.awaited = self.finished.awaited.saturating_add(count);
        count
    }

    /// Whether something was finished that the driver waits for.
    pub(crate) fn has_awaited(&self) -> bool {
        self.finished.awaited > 0
    }

    /// Shows the driver what is due. True when it wants an interrupt for that.
    pub(crate) fn publish<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        company: bool,
    ) -> Result<bool, RingError> {
        if !self.finished.is_shown(self.ring.size(), company) {
            return Ok(false);
        }
        self.finished = Finished::default();
        self.ring.publish(mem)
    }

    /// Whether nothing came since the driver was asked for a notification: then it still is.
    pub(crate) fn is_idle<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<bool, RingError> {
        Ok(self.asked && !self.has_available(mem)?)
    }

    pub(crate) fn enable_notification<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
    ) -> Result<bool, RingError> {
        let is_more = self.ring.enable_notification(mem)?;
        self.asked = !is_more;
        Ok(is_more)
    }

    pub(crate) fn disable_notification<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<(), RingError> {
        self.asked = false;
        self.ring.disable_notification(mem)
    }

    pub(crate) fn has_available<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<bool, RingError> {
        Ok(self.is_put_off || self.ring.has_available(mem)?)
    }
}
