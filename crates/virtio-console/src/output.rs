//! From the guest to the host: one port's transmit queue.

use std::io;
use std::os::fd::BorrowedFd;

use virtio_ring::{Chain, Ring, RingError};
use vm_memory::GuestMemoryBackend;

use crate::Output;
use crate::backend::HostOutput;
use crate::budget::Budget;
use crate::input::Context;
use crate::watch::{Direction, Watch};

/// Where a port's output goes.
#[derive(Default)]
pub(crate) struct OutputSide {
    target: Option<HostOutput>,
    /// The chain that is being written, with the number of bytes that are. The others wait in the ring.
    current: Option<usize>,
    chain: Chain,
    watched: bool,
}

/// What came of moving output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing is left.
    All,
    /// The budget is spent: call again.
    Part,
    /// The host takes no more for now.
    Blocked,
}

enum Step {
    Done,
    Partial,
    WouldBlock,
}

impl OutputSide {
    pub(crate) fn new(output: Option<Output>) -> Self {
        Self {
            target: output.map(HostOutput::new),
            ..Self::default()
        }
    }

    /// Writes what the guest has sent, until the ring is empty or the host takes no more.
    pub(crate) fn pump<M: GuestMemoryBackend>(
        &mut self,
        tx: &mut Ring,
        token: u32,
        context: &mut Context<'_, '_, M>,
    ) -> Result<Written, RingError> {
        let mut budget = Budget::for_ring(tx);
        loop {
            if budget.is_spent(tx) {
                return Ok(Written::Part);
            }
            let Some(offset) = self.current else {
                if tx.pop(context.mem, &mut self.chain)? {
                    budget.take_chain();
                    self.current = Some(0);
                } else if !tx.enable_notification(context.mem)? {
                    self.stop_watching(context.watch);
                    self.flush(context);
                    return Ok(Written::All);
                }
                continue;
            };
            match self.write_piece(offset, &mut budget, context) {
                Step::Partial => {}
                Step::Done => {
                    self.current = None;
                    tx.push_used(context.mem, self.chain.head(), 0)?;
                }
                Step::WouldBlock => {
                    if self.watch(token, context.watch) {
                        return Ok(Written::Blocked);
                    }
                    self.fail(&io::Error::other("the output cannot be waited for"), context);
                }
            }
        }
    }

    fn write_piece<M: GuestMemoryBackend>(
        &mut self,
        offset: usize,
        budget: &mut Budget,
        context: &mut Context<'_, '_, M>,
    ) -> Step {
        let left = self.chain.readable_len().saturating_sub(offset);
        let Some(target) = &mut self.target else {
            context.stats.discarded_bytes = context.stats.discarded_bytes.saturating_add(left as u64);
            return Step::Done;
        };
        let len = left.min(target.piece_len()).min(context.buffer.len());
        let Some(piece) = context.buffer.get_mut(..len).filter(|piece| !piece.is_empty()) else {
            return Step::Done;
        };
        if let Err(error) = self.chain.read_at(context.mem, offset, piece) {
            tracing::debug!(%error, "output lost: a buffer of the guest cannot be read");
            return Step::Done;
        }
        match target.write(piece) {
            Ok(count) => {
                budget.take_bytes(count);
                context.stats.output_bytes = context.stats.output_bytes.saturating_add(count as u64);
                self.current = Some(offset.saturating_add(count));
                if count < left { Step::Partial } else { Step::Done }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => Step::Partial,
                io::ErrorKind::WouldBlock => Step::WouldBlock,
                _ => {
                    self.fail(&error, context);
                    Step::Partial
                }
            },
        }
    }

    fn flush<M: GuestMemoryBackend>(&mut self, context: &mut Context<'_, '_, M>) {
        if let Some(target) = &mut self.target
            && let Err(error) = target.flush()
        {
            self.fail(&error, context);
        }
    }

    /// What the guest writes from now on is thrown away. It cannot be told: the driver's writers would wait for ever.
    fn fail<M: GuestMemoryBackend>(&mut self, error: &io::Error, context: &mut Context<'_, '_, M>) {
        if context.stats.host_errors == 0 {
            tracing::info!(%error, "output of a console port is closed");
        }
        context.stats.host_errors = context.stats.host_errors.saturating_add(1);
        self.close(context.watch);
    }

    fn watch(&mut self, token: u32, watch: &mut dyn Watch) -> bool {
        if let Some(fd) = self.target.as_ref().and_then(HostOutput::fd)
            && !self.watched
        {
            self.watched = watch.watch(fd, token, Direction::Writable).is_ok();
        }
        self.watched
    }

    fn stop_watching(&mut self, watch: &mut dyn Watch) {
        if let Some(fd) = self.target.as_ref().and_then(HostOutput::fd)
            && std::mem::take(&mut self.watched)
        {
            watch.unwatch(fd);
        }
    }

    /// The descriptor that a blocked port waits for.
    pub(crate) fn blocked_fd(&self) -> Option<BorrowedFd<'_>> {
        self.current.and_then(|_| self.target.as_ref().and_then(HostOutput::fd))
    }

    /// The ring with the chain in hand is gone, and so is whoever waits for the descriptor.
    pub(crate) fn forget_ring(&mut self) {
        self.current = None;
        self.watched = false;
    }

    pub(crate) fn close(&mut self, watch: &mut dyn Watch) {
        self.stop_watching(watch);
        self.target = None;
    }
}
