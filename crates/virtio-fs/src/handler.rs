//! From chains to messages and back: the device without a transport.

use std::io;
use std::os::fd::BorrowedFd;

use virtio_ring::{Chain, ChainError, Ring, RingError};
use vm_memory::GuestMemoryBackend;

use crate::{Exchange, Fault, Outcome, Server, sys};

/// Chains that are handled before the driver sees the first of them done.
const BATCH: u16 = 32;

/// Requests that may wait for a lock at a time. Each keeps a chain of the guest from its ring.
const MAX_WAITING: usize = 256;

/// A server behind virtqueues: queue 0 is the high-priority queue, the others are request queues (virtio 1.3, 5.11.2).
pub struct Handler {
    server: Server,
    rings: Vec<Ring>,
    chain: Chain,
    waiting: Vec<Waiting>,
    stats: HandlerStats,
}

/// A request that waits for a lock.
struct Waiting {
    queue: usize,
    unique: u64,
    chain: Chain,
}

/// What [`Handler::process`] leaves to its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// The driver wants an interrupt.
    pub interrupt: bool,
    /// There is more in the rings: call again soon.
    pub more: bool,
    /// A ring is broken: tell the driver that the device needs a reset.
    pub needs_reset: bool,
}

/// What was counted since the handler was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandlerStats {
    /// Chains handled.
    pub chains: u64,
    /// Interrupts asked for.
    pub interrupts: u64,
    /// Requests that waited for a lock.
    pub waited: u64,
}

impl Handler {
    /// Serves `rings` with `server`.
    #[must_use]
    pub fn new(server: Server, rings: Vec<Ring>) -> Self {
        Self {
            server,
            rings,
            chain: Chain::new(),
            waiting: Vec::new(),
            stats: HandlerStats::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> HandlerStats {
        self.stats
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The server, its guest gone.
    #[must_use]
    pub fn into_server(mut self) -> Server {
        self.server.reset();
        self.server
    }

    /// Whether a request waits for a lock: [`process`](Self::process) tries it again, also without a notification.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Handles what is in the rings: of each at most as much as it holds, so a guest cannot keep the caller in here.
    pub fn process<M: GuestMemoryBackend>(&mut self, mem: &M) -> Progress {
        let mut progress = Progress::default();
        for queue in 0..self.rings.len() {
            self.process_queue(mem, queue, &mut progress);
        }
        self.retry_waiting(mem, &mut progress);
        // A lock that was given up on one queue may have ended a wait on another.
        for ring in &mut self.rings {
            match ring.publish(mem) {
                Ok(interrupt) => progress.interrupt |= interrupt,
                Err(_) => progress.needs_reset = true,
            }
        }
        if progress.interrupt {
            self.stats.interrupts = self.stats.interrupts.wrapping_add(1);
        }
        progress
    }

    fn process_queue<M: GuestMemoryBackend>(&mut self, mem: &M, queue: usize, progress: &mut Progress) {
        match self.drain(mem, queue) {
            Ok((interrupt, more)) => {
                progress.interrupt |= interrupt;
                progress.more |= more;
            }
            Err(error) => {
                self.server.queue_broken(queue, &error);
                progress.needs_reset = true;
            }
        }
    }

    /// Gives whether the driver wants an interrupt, and whether there is more.
    fn drain<M: GuestMemoryBackend>(&mut self, mem: &M, queue: usize) -> Result<(bool, bool), RingError> {
        let Some(ring) = self.rings.get_mut(queue).filter(|ring| ring.is_ready()) else {
            return Ok((false, false));
        };
        let mut budget = ring.size();
        let mut malformed = ring.malformed();
        let mut interrupt = false;
        ring.disable_notification(mem)?;
        loop {
            let handled = self.handle_batch(mem, queue, budget.min(BATCH))?;
            let Some(ring) = self.rings.get_mut(queue) else {
                return Ok((interrupt, false));
            };
            // Chains that the ring itself gave back took time too.
            let before = std::mem::replace(&mut malformed, ring.malformed());
            let given_back = u16::try_from(malformed.saturating_sub(before)).unwrap_or(u16::MAX);
            budget = budget.saturating_sub(handled).saturating_sub(given_back);
            interrupt |= ring.publish(mem)?;
            if budget == 0 {
                return Ok((interrupt, true));
            }
            if handled < BATCH && !ring.enable_notification(mem)? {
                return Ok((interrupt, false));
            }
        }
    }

    fn handle_batch<M: GuestMemoryBackend>(&mut self, mem: &M, queue: usize, limit: u16) -> Result<u16, RingError> {
        let mut handled = 0;
        while handled < limit {
            let Some(ring) = self.rings.get_mut(queue) else { break };
            if !ring.pop(mem, &mut self.chain)? {
                break;
            }
            handled += 1;
            self.stats.chains = self.stats.chains.wrapping_add(1);
            self.handle_chain(mem, queue)?;
        }
        Ok(handled)
    }

    fn handle_chain<M: GuestMemoryBackend>(&mut self, mem: &M, queue: usize) -> Result<(), RingError> {
        let mut exchange = ChainExchange {
            mem,
            chain: &self.chain,
        };
        let written = match self.server.handle(&mut exchange) {
            Outcome::Replied(written) => written,
            Outcome::Waits { unique } if self.waiting.len() < MAX_WAITING => {
                self.stats.waited = self.stats.waited.wrapping_add(1);
                let chain = std::mem::take(&mut self.chain);
                self.waiting.push(Waiting { queue, unique, chain });
                return Ok(());
            }
            Outcome::Waits { unique } => self.server.cancel(&mut exchange, unique),
            Outcome::Interrupts { unique } => {
                self.interrupt_waiting(mem, unique)?;
                0
            }
        };
        self.give_back(mem, queue, self.chain.head(), written)
    }

    /// Requests that wait for a lock are tried again, in their order.
    fn retry_waiting<M: GuestMemoryBackend>(&mut self, mem: &M, progress: &mut Progress) {
        for waiting in std::mem::take(&mut self.waiting) {
            let mut exchange = ChainExchange {
                mem,
                chain: &waiting.chain,
            };
            let written = match self.server.handle(&mut exchange) {
                Outcome::Replied(written) => written,
                Outcome::Waits { .. } => {
                    self.waiting.push(waiting);
                    continue;
                }
                Outcome::Interrupts { .. } => 0,
            };
            if self
                .give_back(mem, waiting.queue, waiting.chain.head(), written)
                .is_err()
            {
                progress.needs_reset = true;
            }
        }
    }

    fn interrupt_waiting<M: GuestMemoryBackend>(&mut self, mem: &M, unique: u64) -> Result<(), RingError> {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.unique == unique) else {
            return Ok(());
        };
        let waiting = self.waiting.remove(index);
        let mut exchange = ChainExchange {
            mem,
            chain: &waiting.chain,
        };
        let written = self.server.cancel(&mut exchange, unique);
        self.give_back(mem, waiting.queue, waiting.chain.head(), written)
    }

    fn give_back<M: GuestMemoryBackend>(
        &mut self,
        mem: &M,
        queue: usize,
        head: u16,
        written: u32,
    ) -> Result<(), RingError> {
        match self.rings.get_mut(queue) {
            Some(ring) => ring.push_used(mem, head, written),
            None => Ok(()),
        }
    }
}

/// One chain as a message and the room for its reply.
struct ChainExchange<'a, M> {
    mem: &'a M,
    chain: &'a Chain,
}

impl<M: GuestMemoryBackend> Exchange for ChainExchange<'_, M> {
    fn request_len(&self) -> usize {
        self.chain.readable_len()
    }

    fn reply_room(&self) -> usize {
        self.chain.writable_len()
    }

    fn read_request(&self, offset: usize, buf: &mut [u8]) -> Result<(), Fault> {
        self.chain.read_at(self.mem, offset, buf).map_err(|_: ChainError| Fault)
    }

    fn write_reply(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Fault> {
        self.chain
            .write_at(self.mem, offset, bytes)
            .map_err(|_: ChainError| Fault)
    }

    fn reply_from_file(&mut self, offset: usize, len: usize, file: BorrowedFd<'_>, at: u64) -> io::Result<usize> {
        sys::read_into(file, at, self.chain.writable_slices(self.mem, offset, len))
    }

    fn request_to_file(&self, offset: usize, len: usize, file: BorrowedFd<'_>, at: u64) -> io::Result<usize> {
        sys::write_from(file, at, self.chain.readable_slices(self.mem, offset, len))
    }
}
