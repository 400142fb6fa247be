//! From chains to messages and back: the device without a transport.

use std::time::Duration;

use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;

use crate::aside::{Asides, Task};
use crate::cached_reads::CachedReads;
use crate::chain_exchange::ChainExchange;
use crate::hold::{HOLD, Notified};
use crate::lane::{Awaited, Lane};
use crate::{Errno, Job, Outcome, Server, short};

/// Chains that are handled before the driver sees the first of them done.
const BATCH: u16 = 32;

/// Chains of each queue that are handled in passing.
const IN_PASSING: u16 = 8;

/// Requests that may wait for a lock at a time. Each keeps a chain of the guest from its ring.
const MAX_WAITING: usize = 256;

/// The high-priority queue.
const HIPRIO: usize = 0;

/// A server behind virtqueues: queue 0 is the high-priority queue, the others are request queues (virtio 1.3, 5.11.2).
pub struct Handler {
    server: Server,
    lanes: Vec<Lane>,
    chain: Chain,
    waiting: Vec<Waiting>,
    asides: Asides,
    /// Whether completions may be held back: only for a caller that comes back for them.
    holds_back: bool,
    /// Only for a caller that takes them.
    leaves_tasks: bool,
    notified: Notified,
    /// Something else than a FORGET came since the last one.
    asked_since_forget: bool,
    cached_reads: CachedReads,
    stats: HandlerStats,
}

/// How much time the caller has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Thorough,
    /// Only what is short.
    InPassing,
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
    /// Something is held back: call [`Handler::settle`] within [`Handler::HOLD`], whatever is processed before. Never
    /// without [`Handler::holding_back`].
    pub held: bool,
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
    /// Requests that were left to a [`Task`].
    pub aside: u64,
}

impl Handler {
    /// How long something is [held back](Self::holding_back) at most.
    pub const HOLD: Duration = HOLD;

    /// Serves `rings` with `server`.
    #[must_use]
    pub fn new(server: Server, rings: Vec<Ring>) -> Self {
        Self {
            server,
            lanes: rings.into_iter().map(Lane::new).collect(),
            chain: Chain::new(),
            waiting: Vec::new(),
            asides: Asides::default(),
            holds_back: false,
            leaves_tasks: false,
            notified: Notified::default(),
            asked_since_forget: false,
            cached_reads: CachedReads::default(),
            stats: HandlerStats::default(),
        }
    }

    /// Lets completions that nobody waits for (FORGET has no reply) come to the driver with the next reply, or when they
    /// are a quarter of their ring, and asks for no notification of further ones meanwhile. The caller then looks at
    /// [`Progress::held`] and calls [`settle`](Self::settle) in time.
    #[must_use]
    pub fn holding_back(mut self) -> Self {
        self.holds_back = true;
        self
    }

    /// Leaves to the caller what may take as long as a disk does, and serves other requests meanwhile. The caller then calls
    /// [`take_task`](Self::take_task) after each [`process`](Self::process) and [`settle`](Self::settle).
    #[must_use]
    pub fn leaving_tasks(mut self) -> Self {
        self.leaves_tasks = true;
        self
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

    /// What is to be done on another thread, one after another. Its request is answered by the first
    /// [`process`](Self::process) after it was run; the request of one that is dropped has failed with EIO. `None` when there
    /// is no more, and always without [`leaving_tasks`](Self::leaving_tasks).
    pub fn take_task(&mut self) -> Option<Task> {
        self.asides.take_task()
    }

    /// Handles what is in the rings: of each at most as much as it holds, so a guest cannot keep the caller in here.
    pub fn process<M: GuestMemoryBackend>(&mut self, mem: &M) -> Progress {
        self.process_at(Pace::Thorough, mem)
    }

    /// The same for a caller that has little time, such as a vCPU's thread: up to the first request of each ring that may
    /// take long, and a few of each at the most. [`Progress::more`] tells of what is left.
    pub fn process_in_passing<M: GuestMemoryBackend>(&mut self, mem: &M) -> Progress {
        if !self.asides.is_empty() {
            // What a sync of the host's holds, a write would wait for.
            return Progress {
                more: true,
                ..Progress::default()
            };
        }
        self.process_at(Pace::InPassing, mem)
    }

    fn process_at<M: GuestMemoryBackend>(&mut self, pace: Pace, mem: &M) -> Progress {
        let mem = &Nearby::new(mem);
        let mut progress = Progress::default();
        for queue in 0..self.lanes.len() {
            self.process_queue(mem, queue, pace, &mut progress);
        }
        self.retry_waiting(mem, &mut progress);
        self.answer_done(mem, &mut progress);
        // A lock that was given up on one queue may have ended a wait on another.
        let company = !self.holds_back || progress.interrupt || self.lanes.iter().any(Lane::has_awaited);
        self.publish_all(mem, company, &mut progress);
        self.counted(progress)
    }

    /// Shows the driver all that is [held back](Self::holding_back), and asks for notifications again where nothing came
    /// without them.
    pub fn settle<M: GuestMemoryBackend>(&mut self, mem: &M) -> Progress {
        let mem = &Nearby::new(mem);
        let mut progress = Progress::default();
        self.notified = self.notified.after_deadline();
        self.process_queue(mem, HIPRIO, Pace::Thorough, &mut progress);
        self.publish_all(mem, true, &mut progress);
        self.counted(progress)
    }

    fn publish_all<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>, company: bool, progress: &mut Progress) {
        for lane in &mut self.lanes {
            match lane.publish(mem, company) {
                Ok(interrupt) => progress.interrupt |= interrupt,
                Err(_) => progress.needs_reset = true,
            }
        }
    }

    fn counted(&mut self, mut progress: Progress) -> Progress {
        progress.held = self.notified.is_quiet() || self.lanes.iter().any(Lane::holds_back);
        if progress.interrupt {
            self.stats.interrupts = self.stats.interrupts.wrapping_add(1);
        }
        progress
    }

    fn process_queue<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        queue: usize,
        pace: Pace,
        progress: &mut Progress,
    ) {
        match self.drain(mem, queue, pace) {
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
    fn drain<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        queue: usize,
        pace: Pace,
    ) -> Result<(bool, bool), RingError> {
        let Some(lane) = self.lanes.get_mut(queue).filter(|lane| lane.is_ready()) else {
            return Ok((false, false));
        };
        if lane.is_idle(mem)? {
            return Ok((false, false));
        }
        let mut budget = match pace {
            Pace::Thorough => lane.size(),
            Pace::InPassing => lane.size().min(IN_PASSING),
        };
        let mut interrupt = false;
        lane.disable_notification(mem)?;
        loop {
            let (handled, put_off) = self.handle_batch(mem, queue, pace, budget.min(BATCH))?;
            let Some(lane) = self.lanes.get_mut(queue) else {
                return Ok((interrupt, false));
            };
            budget = budget.saturating_sub(handled).saturating_sub(lane.take_malformed());
            interrupt |= lane.publish(mem, !self.holds_back)?;
            if budget == 0 || put_off {
                return Ok((interrupt, true));
            }
            if handled < BATCH && !self.is_more_expected(mem, queue)? {
                return Ok((interrupt, false));
            }
        }
    }

    /// Asks for a notification, unless the queue is looked at without one. True when there is something already.
    fn is_more_expected<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        queue: usize,
    ) -> Result<bool, RingError> {
        let Some(lane) = self.lanes.get_mut(queue) else {
            return Ok(false);
        };
        if queue == HIPRIO && self.notified.is_quiet() {
            lane.has_available(mem)
        } else {
            lane.enable_notification(mem)
        }
    }

    /// Gives how many were handled, and whether the next one was put off.
    fn handle_batch<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        queue: usize,
        pace: Pace,
        limit: u16,
    ) -> Result<(u16, bool), RingError> {
        let mut handled = 0;
        while handled < limit {
            let Some(lane) = self.lanes.get_mut(queue) else { break };
            if !lane.pop(mem, &mut self.chain)? {
                break;
            }
            if pace == Pace::InPassing && !is_short(mem, &self.chain) {
                lane.put_off(&mut self.chain);
                return Ok((handled, true));
            }
            if !self.handle_chain(mem, queue, pace)? {
                return Ok((handled, true));
            }
            handled += 1;
            self.stats.chains = self.stats.chains.wrapping_add(1);
        }
        Ok((handled, false))
    }

    /// False when the request was put off, as its data has to be read from a disk and the caller has no time for that. What
    /// the guest then finds in its buffer is nothing yet: it was not told of it.
    fn handle_chain<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        queue: usize,
        pace: Pace,
    ) -> Result<bool, RingError> {
        let mut exchange = ChainExchange::new(mem, &self.chain);
        if pace == Pace::InPassing {
            exchange = exchange.only_cached(&mut self.cached_reads);
        }
        let outcome = self.server.handle(&mut exchange);
        if exchange.is_put_off() {
            if let Some(lane) = self.lanes.get_mut(queue) {
                lane.put_off(&mut self.chain);
            }
            return Ok(false);
        }
        let (written, awaited) = match outcome {
            Outcome::Replied(written) => (written, Awaited::Yes),
            Outcome::Unanswered => {
                self.note_forget(queue);
                (0, Awaited::No)
            }
            Outcome::Waits { unique } if self.waiting.len() < MAX_WAITING => {
                self.wait_for_lock(queue, unique);
                return Ok(true);
            }
            Outcome::Waits { unique } => (self.server.cancel(&mut exchange, unique), Awaited::Yes),
            Outcome::Later { unique, job } if self.leaves_tasks && !self.asides.is_full() => {
                self.leave_aside(queue, unique, job);
                return Ok(true);
            }
            Outcome::Later { unique, job } => (self.server.finish(&mut exchange, unique, job.run()), Awaited::Yes),
            Outcome::Interrupts { unique } => {
                self.interrupt_waiting(mem, unique)?;
                (0, Awaited::Yes)
            }
        };
        self.asked_since_forget |= awaited == Awaited::Yes;
        self.give_back(mem, queue, self.chain.head(), written, awaited)?;
        Ok(true)
    }

    fn note_forget(&mut self, queue: usize) {
        if self.holds_back && queue == HIPRIO {
            let among_requests = std::mem::take(&mut self.asked_since_forget);
            self.notified = self.notified.after_forget(among_requests);
        }
    }

    fn wait_for_lock(&mut self, queue: usize, unique: u64) {
        self.stats.waited = self.stats.waited.wrapping_add(1);
        let chain = std::mem::take(&mut self.chain);
        self.waiting.push(Waiting { queue, unique, chain });
    }

    fn leave_aside(&mut self, queue: usize, unique: u64, job: Job) {
        self.stats.aside = self.stats.aside.wrapping_add(1);
        let chain = std::mem::take(&mut self.chain);
        self.asides.begin(queue, unique, chain, job);
    }

    /// Requests that wait for a lock are tried again, in their order.
    fn retry_waiting<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>, progress: &mut Progress) {
        if self.waiting.is_empty() {
            return;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            let mut exchange = ChainExchange::new(mem, &waiting.chain);
            let written = match self.server.handle(&mut exchange) {
                Outcome::Replied(written) => written,
                Outcome::Waits { .. } => {
                    self.waiting.push(waiting);
                    continue;
                }
                // The guest has made another request of it, which nobody has time for here.
                Outcome::Later { unique, .. } => self.server.finish(&mut exchange, unique, Err(Errno::EIO)),
                Outcome::Unanswered | Outcome::Interrupts { .. } => 0,
            };
            if self
                .give_back(mem, waiting.queue, waiting.chain.head(), written, Awaited::Yes)
                .is_err()
            {
                progress.needs_reset = true;
            }
        }
    }

    fn answer_done<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>, progress: &mut Progress) {
        while let Some((aside, result)) = self.asides.take_done() {
            let mut exchange = ChainExchange::new(mem, &aside.chain);
            let written = self.server.finish(&mut exchange, aside.unique, result);
            if self
                .give_back(mem, aside.queue, aside.chain.head(), written, Awaited::Yes)
                .is_err()
            {
                progress.needs_reset = true;
            }
        }
    }

    fn interrupt_waiting<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>, unique: u64) -> Result<(), RingError> {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.unique == unique) else {
            return Ok(());
        };
        let waiting = self.waiting.remove(index);
        let mut exchange = ChainExchange::new(mem, &waiting.chain);
        let written = self.server.cancel(&mut exchange, unique);
        self.give_back(mem, waiting.queue, waiting.chain.head(), written, Awaited::Yes)
    }

    fn give_back<M: GuestMemoryBackend>(
        &mut self,
        mem: &Nearby<'_, M>,
        queue: usize,
        head: u16,
        written: u32,
        awaited: Awaited,
    ) -> Result<(), RingError> {
        match self.lanes.get_mut(queue) {
            Some(lane) => lane.give_back(mem, head, written, awaited),
            None => Ok(()),
        }
    }
}

/// Whether the request is answered soon. What cannot be read is refused at once.
fn is_short<M: GuestMemoryBackend>(mem: &M, chain: &Chain) -> bool {
    let mut start = short::Start::default();
    let mut word = [0; 4];
    let read = chain.read_at(mem, 0, &mut start);
    let read = read.and_then(|()| match short::word_offset(start) {
        Some(offset) => chain.read_at(mem, offset, &mut word),
        None => Ok(()),
    });
    let len = chain.readable_len().max(chain.writable_len());
    read.is_err() || short::is_short(start, u32::from_le_bytes(word), len)
}
