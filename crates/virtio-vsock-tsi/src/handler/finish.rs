//! The end of the machine: what the guest has sent still goes out.
//!
//! A guest's program that sends its last bytes and ends takes the machine with it. On a computer of its own the kernel
//! would go on delivering them; here nobody else does.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_ring::{Nearby, RingError};
use vm_memory::GuestMemoryBackend;
use vsock_proto::ProxyId;

use super::actions::discard;
use super::{Handler, MAX_ROUNDS, Queues};
use crate::backend::Backend;
use crate::watch::NoLoop;

/// How long peers that go on sending are listened to at the most, and how long a silence tells that they have stopped.
const LINGER: Duration = Duration::from_secs(1);
const QUIET: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

impl<B: Backend> Handler<B> {
    /// The driver has stopped for good: delivers to the host what it had sent, as far as the host takes it within
    /// `patience`. Only [`reset`](Handler::reset) may follow.
    ///
    /// Blocks, as nothing else here does: up to `patience`, and then up to a second (`patience` if that is shorter) and a
    /// silence of 50 ms for what hosts are still sending, as a close with that unread resets the connection.
    ///
    /// # Errors
    /// When the transmit ring is broken; what was taken from it before is delivered all the same.
    pub fn finish<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        patience: Duration,
        queues: &mut Queues,
        mem: &M,
    ) -> Result<(), RingError> {
        let deadline = Instant::now().checked_add(patience);
        let taken = self.take_the_last(now, queues, mem);
        while let Some(ready) = self.wait_for_takers(deadline) {
            for id in ready {
                self.silence(id);
                self.flush_backlog(id);
            }
            self.run_actions(now, &mut NoLoop);
        }
        self.forget_input(patience);
        taken
    }

    /// A socket that is closed with bytes unread, or that gets some afterwards, resets its connection, and what was sent on
    /// it is lost with that. A peer that was not listened to has more on the way, so it gets a moment to bring it.
    fn forget_input(&mut self, patience: Duration) {
        let end = Instant::now() + LINGER.min(patience);
        while self.discard_all() > 0 && Instant::now() < end && self.more_is_coming() {}
    }

    fn discard_all(&mut self) -> usize {
        let scratch = Self::scratch(&mut self.scratch);
        self.endpoints.flushed_sockets().map(|fd| discard(fd, scratch)).sum()
    }

    fn more_is_coming(&self) -> bool {
        let sockets = self.endpoints.flushed_sockets();
        let mut fds: Vec<_> = sockets.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        poll(&mut fds, Some(&QUIET)).is_ok_and(|ready| ready > 0)
    }

    fn take_the_last<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        queues: &mut Queues,
        mem: &M,
    ) -> Result<(), RingError> {
        let mem = &Nearby::new(mem);
        for _ in 0..MAX_ROUNDS {
            if !self.drain_tx(now, &mut queues.tx, mem, &mut NoLoop)? {
                break;
            }
        }
        Ok(())
    }

    /// Which of those that have not taken everything yet take more; `None` when there are none, or time is up.
    fn wait_for_takers(&self, deadline: Option<Instant>) -> Option<Vec<ProxyId>> {
        let (ids, mut fds): (Vec<_>, Vec<_>) = self.endpoints.with_backlog().unzip();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if ids.is_empty() || left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        // A deadline beyond what can be told is none.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => None,
            Ok(_) => {
                let ready = ids.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
                Some(ready.map(|(id, _)| id).collect())
            }
            Err(rustix::io::Errno::INTR) => Some(Vec::new()),
            Err(_) => None,
        }
    }
}
