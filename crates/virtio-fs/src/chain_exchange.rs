//! One chain of guest memory as a message.

use std::io;
use std::os::fd::BorrowedFd;

use virtio_ring::{Chain, ChainError};
use vm_memory::GuestMemoryBackend;

use crate::cached_reads::CachedReads;
use crate::sys::{self, Span};
use crate::{Durability, Exchange, Fault, Source, Target};

/// One chain as a message and the room for its reply.
pub(crate) struct ChainExchange<'a, M> {
    mem: &'a M,
    chain: &'a Chain,
    /// Data of files must be in memory.
    only_cached: Option<&'a mut CachedReads>,
    /// Some was not.
    is_put_off: bool,
}

impl<'a, M: GuestMemoryBackend> ChainExchange<'a, M> {
    pub(crate) fn new(mem: &'a M, chain: &'a Chain) -> Self {
        Self {
            mem,
            chain,
            only_cached: None,
            is_put_off: false,
        }
    }

    /// Takes data of files only from the host's memory.
    pub(crate) fn only_cached(mut self, known: &'a mut CachedReads) -> Self {
        self.only_cached = Some(known);
        self
    }

    /// Whether there was data that is not in memory.
    pub(crate) fn is_put_off(&self) -> bool {
        self.is_put_off
    }
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

    fn reply_from_file(&mut self, offset: usize, len: usize, from: Source<'_>) -> io::Result<usize> {
        let segments = self.chain.writable_segments();
        let span = Span { segments, offset, len };
        let Some(known) = self.only_cached.as_deref_mut() else {
            return sys::read_into(from.file, from.at, self.mem, &span);
        };
        let read = known.read(from, self.mem, &span);
        self.is_put_off |= read
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        read
    }

    fn request_to_file(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        to: Target,
        durability: Durability,
    ) -> io::Result<usize> {
        let segments = self.chain.readable_segments();
        let span = Span { segments, offset, len };
        durability.write(file, |flags| sys::write_from(file, to, flags, self.mem, &span))
    }
}
