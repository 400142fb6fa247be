//! Telling the driver that its connections are gone (virtio 1.3, 5.10.6.7).
//!
//! Linux (6.12) ends every connection that it knows when it looks at the event, in a thread of its own. One that came after the
//! event and was looked at before it would end too, and nobody would say so. So nothing is given to the driver until it has
//! posted the event's buffer again, which it does when it is done.

use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;

const TRANSPORT_RESET: [u8; 4] = 0u32.to_le_bytes();

/// How far the driver is with it.
#[derive(Debug, Default)]
pub(super) enum TransportReset {
    /// There is none, or it is done with it.
    #[default]
    None,
    /// It is to be told.
    Due,
    /// It was told, and is done when so many event buffers are available, or as many as there can be: a saved state may say
    /// anything.
    Told(u16),
    /// It is done. What it had sent on its streams before may be in its ring still.
    Done,
}

impl TransportReset {
    /// Of a driver that was told before its state was saved, and was not done: it is not told again, for the buffer of the first
    /// event would be taken for that of the second.
    pub(super) fn after_restore(done_at: Option<u16>) -> Self {
        done_at.map_or(Self::Due, Self::Told)
    }

    /// How many event buffers are available when a driver that was told is done.
    pub(super) fn done_at(&self) -> Option<u16> {
        match self {
            Self::Told(done) => Some(*done),
            Self::None | Self::Due | Self::Done => None,
        }
    }

    /// Whether the driver may be given anything.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::None)
    }

    /// All that the driver had sent was taken. True if that was when it had heard the news, so that it says no more about the
    /// streams that it had.
    pub(super) fn ends_streams(&mut self) -> bool {
        let done = matches!(self, Self::Done);
        if done {
            *self = Self::None;
        }
        done
    }

    /// Tells the driver as soon as it has a buffer for that, and finds out whether it is done. True when there is more to do, or
    /// the driver may have done something meanwhile.
    pub(super) fn turn<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
    ) -> Result<bool, RingError> {
        if matches!(self, Self::None | Self::Done) {
            return Ok(!self.is_over());
        }
        if !ring.is_ready() {
            *self = Self::None;
            return Ok(false);
        }
        if matches!(self, Self::Due) {
            self.tell(ring, mem)?;
        }
        let enough = match self {
            Self::Told(done) => (*done).min(ring.size()),
            _ => 1,
        };
        ring.enable_notification_after(mem, enough.saturating_sub(1))?;
        let available = ring.available(mem)?;
        match self {
            Self::Told(_) if available >= enough => {
                *self = Self::Done;
                Ok(true)
            }
            Self::Due => Ok(available > 0),
            _ => Ok(false),
        }
    }

    fn tell<M: GuestMemoryBackend>(&mut self, ring: &mut Ring, mem: &Nearby<'_, M>) -> Result<(), RingError> {
        let mut chain = Chain::new();
        let mut available = ring.available(mem)?;
        // Buffers that are too short may come as fast as they go back.
        for _ in 0..ring.size() {
            if !matches!(self, Self::Due) || !ring.pop(mem, &mut chain)? {
                break;
            }
            let written = chain.write_at(mem, 0, &TRANSPORT_RESET).is_ok();
            ring.push_used(mem, chain.head(), if written { 4 } else { 0 })?;
            if written {
                *self = Self::Told(available);
            }
            available = ring.available(mem)?;
        }
        Ok(())
    }
}
