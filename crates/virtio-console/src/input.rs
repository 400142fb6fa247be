//! From the host to the guest: one port's receive queue.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;

use crate::Stats;
use crate::backend::HostFd;
use crate::budget::Budget;
use crate::watch::{Direction, Watch};

/// Where a port's input comes from.
#[derive(Debug, Default)]
pub(crate) struct Input {
    source: Option<HostFd>,
    watched: bool,
}

/// What came of moving input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// All that can be done now is done.
    All,
    /// The budget is spent: call again.
    Part,
    /// The source has ended.
    Ended,
}

/// What moving needs beside the port.
pub(crate) struct Context<'a, 'm, M: GuestMemoryBackend> {
    pub(crate) mem: &'a Nearby<'m, M>,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) stats: &'a mut Stats,
    pub(crate) watch: &'a mut dyn Watch,
}

impl Input {
    pub(crate) fn new(source: Option<OwnedFd>) -> Self {
        Self {
            source: source.map(HostFd::new),
            watched: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.source.is_some()
    }

    /// Reads from the source into the guest's buffers, until one of them has nothing more.
    pub(crate) fn pump<M: GuestMemoryBackend>(
        &mut self,
        rx: &mut Ring,
        chain: &mut Chain,
        token: u32,
        context: &mut Context<'_, '_, M>,
    ) -> Result<Moved, RingError> {
        let mut budget = Budget::for_ring(rx);
        while let Some(source) = &self.source {
            if budget.is_spent(rx) {
                return Ok(Moved::Part);
            }
            if !rx.pop(context.mem, chain)? {
                if rx.enable_notification(context.mem)? {
                    continue;
                }
                // Without buffers waiting for input would be spinning.
                self.stop_watching(context.watch);
                return Ok(Moved::All);
            }
            budget.take_chain();
            let room = chain.writable_len().min(context.buffer.len());
            let Some(buffer) = context.buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else {
                rx.push_used(context.mem, chain.head(), 0)?;
                continue;
            };
            match source.read(buffer) {
                Ok(0) => {
                    rx.undo_pop();
                    self.close(context.watch);
                    return Ok(Moved::Ended);
                }
                Ok(count) => {
                    let len = deliver(rx, chain, context.mem, buffer.get(..count).unwrap_or_default())?;
                    budget.take_bytes(count);
                    context.stats.input_bytes = context.stats.input_bytes.saturating_add(u64::from(len));
                }
                Err(error) => {
                    rx.undo_pop();
                    if let Some(moved) = self.not_read(&error, token, context) {
                        return Ok(moved);
                    }
                }
            }
        }
        Ok(Moved::All)
    }

    /// After a read that failed; `None` to read again.
    fn not_read<M: GuestMemoryBackend>(
        &mut self,
        error: &io::Error,
        token: u32,
        context: &mut Context<'_, '_, M>,
    ) -> Option<Moved> {
        match error.kind() {
            io::ErrorKind::Interrupted => None,
            io::ErrorKind::WouldBlock if self.watch(token, context.watch) => Some(Moved::All),
            _ => {
                report(error, context.stats);
                self.close(context.watch);
                Some(Moved::Ended)
            }
        }
    }

    /// False when the source cannot be waited for.
    fn watch(&mut self, token: u32, watch: &mut dyn Watch) -> bool {
        if let Some(source) = &self.source
            && !self.watched
        {
            self.watched = watch.watch(source.as_fd(), token, Direction::Readable).is_ok();
        }
        self.watched
    }

    pub(crate) fn stop_watching(&mut self, watch: &mut dyn Watch) {
        if let Some(source) = &self.source
            && std::mem::take(&mut self.watched)
        {
            watch.unwatch(source.as_fd());
        }
    }

    /// Whoever waits for the source is elsewhere now.
    pub(crate) fn forget_watch(&mut self) {
        self.watched = false;
    }

    pub(crate) fn close(&mut self, watch: &mut dyn Watch) {
        self.stop_watching(watch);
        self.source = None;
    }
}

fn deliver<M: GuestMemoryBackend>(
    rx: &mut Ring,
    chain: &Chain,
    mem: &Nearby<'_, M>,
    bytes: &[u8],
) -> Result<u32, RingError> {
    let len = match chain.write_at(mem, 0, bytes) {
        Ok(()) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        Err(error) => {
            tracing::debug!(%error, "input lost: a buffer of the guest cannot be written");
            0
        }
    };
    rx.push_used(mem, chain.head(), len)?;
    Ok(len)
}

fn report(error: &io::Error, stats: &mut Stats) {
    // A terminal that hangs up says EIO, which is how it ends.
    if stats.host_errors == 0 {
        tracing::info!(%error, "input of a console port ends");
    }
    stats.host_errors = stats.host_errors.saturating_add(1);
}
