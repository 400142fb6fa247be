//! From the host to the driver.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;
use vm_memory::bitmap::MS;
use vsock_proto::wire::{GETNAME_REPLY_LEN, HEADER_LEN, Header, MAX_PAYLOAD_LEN};
use vsock_proto::{DatagramRead, ProxyId, StreamRead, Transmit};

use super::Handler;
use super::endpoint::Body;
use crate::backend::{Backend, HostStream, ServiceRead, from_any, would_block};
use crate::sys::{self, Parts};
use crate::watch::Watcher;

/// A buffer with less room cannot hold any reply.
const MIN_BUFFER: usize = HEADER_LEN + 4;

/// Turns of one call. A host that floods us with datagrams nobody wants would keep us here otherwise.
const MAX_TURNS: usize = 1024;

/// Receive buffers that were taken, and what could not be put into one.
#[derive(Default)]
pub(super) struct RxPath {
    /// The first `taken` are buffers of the driver's, in the order in which they were taken; those stay for the next
    /// time if not needed. The others are to be filled again: a chain that moved in and out of another list for each
    /// packet would cost as much as taking it.
    chains: VecDeque<Chain>,
    taken: usize,
    /// A packet that found no buffer large enough.
    pub(super) held: Option<Transmit>,
    /// A stream's data went to the driver.
    pub(super) gave_data: bool,
    /// A datagram service may have something.
    pub(super) route_datagrams: bool,
}

impl RxPath {
    /// Takes buffers until there are `count`. Useless ones go back.
    fn take<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        count: usize,
        stats: &vsock_proto::Stats,
    ) -> Result<bool, RingError> {
        while self.taken < count {
            if self.chains.len() <= self.taken {
                self.chains.push_back(Chain::new());
            }
            let Some(chain) = self.chains.get_mut(self.taken) else {
                return Ok(false);
            };
            if !ring.pop_nearby(mem, chain)? {
                return Ok(false);
            }
            if chain.readable_len() > 0 || chain.writable_len() < MIN_BUFFER {
                stats.rx_unusable.count();
                ring.push_used_nearby(mem, chain.head(), 0)?;
            } else {
                self.taken += 1;
            }
        }
        Ok(true)
    }

    /// The buffers that were taken, oldest first.
    fn taken(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().take(self.taken)
    }

    /// The oldest buffer.
    fn oldest(&self) -> Option<&Chain> {
        self.taken().next()
    }

    /// How much payload the buffer at `index` of the taken ones has room for.
    fn capacity_of(&self, index: usize) -> usize {
        self.chains.get(index).map_or(0, capacity)
    }

    /// Gives the oldest buffer back with `len` bytes in it.
    fn give<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        len: usize,
    ) -> Result<(), RingError> {
        let Some(chain) = self.oldest() else {
            return Ok(());
        };
        let result = ring.push_used_nearby(mem, chain.head(), u32::try_from(len).unwrap_or(0));
        self.given(1);
        result
    }

    /// The `count` oldest buffers are the driver's again.
    fn given(&mut self, count: usize) {
        let count = count.min(self.taken);
        self.chains.rotate_left(count);
        self.taken -= count;
    }

    /// Gives back all buffers, with nothing in them.
    pub(super) fn give_all_back<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
    ) -> Result<(), RingError> {
        while self.taken > 0 {
            self.give(ring, mem, 0)?;
        }
        Ok(())
    }

    /// Puts a whole packet into the oldest buffer. False if it does not fit there.
    fn put<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        header: &Header,
        payload: &[u8],
    ) -> Result<bool, RingError> {
        let Some(chain) = self.oldest() else {
            return Ok(false);
        };
        let fits = chain.write_at(mem, HEADER_LEN, payload).is_ok() && chain.write_at(mem, 0, &header.emit()).is_ok();
        self.give(ring, mem, if fits { HEADER_LEN + payload.len() } else { 0 })?;
        Ok(fits)
    }
}

fn capacity(chain: &Chain) -> usize {
    chain
        .writable_len()
        .saturating_sub(HEADER_LEN)
        .min(MAX_PAYLOAD_LEN as usize)
}

impl<B: Backend> Handler<B> {
    /// Gives the driver what there is for it. True when the driver or the host has to be asked again.
    pub(super) fn pump_rx<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        watcher: &mut dyn Watcher,
    ) -> Result<bool, RingError> {
        ring.disable_notification_nearby(mem)?;
        for _ in 0..MAX_TURNS {
            if self.rx.held.is_none() && !self.mux.wants_transmit() && !self.rx.route_datagrams {
                return Ok(false);
            }
            if !self.rx.take(ring, mem, 1, self.mux.stats())? {
                // The driver notifies when it has added buffers; until then the host's sockets wait.
                return ring.enable_notification_nearby(mem);
            }
            let Some(transmit) = self.rx.held.take().or_else(|| self.mux.poll_transmit()) else {
                self.route_datagram_turn(ring, mem)?;
                continue;
            };
            self.transmit(ring, mem, transmit)?;
            self.run_actions(now, watcher);
        }
        Ok(true)
    }

    fn transmit<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        transmit: Transmit,
    ) -> Result<(), RingError> {
        let fits = match &transmit {
            Transmit::Stream {
                id,
                max_bytes,
                max_packets,
            } => {
                return self.stream_turn(ring, mem, *id, *max_bytes as usize, *max_packets as usize);
            }
            Transmit::Datagram { id } => return self.datagram_turn(ring, mem, *id),
            Transmit::Packet { header, reply } => {
                let mut bytes = [0; GETNAME_REPLY_LEN];
                let payload = reply.as_ref().map_or(&[] as &[u8], |reply| reply.emit(&mut bytes));
                self.rx.put(ring, mem, header, payload)?
            }
            Transmit::Time { header, unix_nanos } => self.rx.put(ring, mem, header, &unix_nanos.to_le_bytes())?,
        };
        if !fits {
            self.mux.stats().rx_unusable.count();
            self.rx.held = Some(transmit);
        }
        Ok(())
    }

    /// One read of the host's socket into as many buffers as it may fill.
    fn stream_turn<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        id: ProxyId,
        max_bytes: usize,
        max_packets: usize,
    ) -> Result<(), RingError> {
        let appetite = self.endpoints.get(id).map_or(1, |endpoint| endpoint.appetite);
        let max_packets = max_packets.min(appetite);
        let (mut buffers, mut room) = (1, self.rx.capacity_of(0));
        while buffers < max_packets && room < max_bytes && self.rx.take(ring, mem, buffers + 1, self.mux.stats())? {
            room += self.rx.capacity_of(buffers);
            buffers += 1;
        }
        let (asked, result) = self.read_stream(mem, id, buffers, max_bytes);
        let got = *result.as_ref().unwrap_or(&0);
        let filled = self.hand_over(ring, mem, id, got)?;
        self.rx.gave_data |= filled > 0;
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            endpoint.learn_appetite(filled, filled == buffers);
        }
        let hung_up = self.endpoints.get(id).is_none_or(|endpoint| endpoint.hung_up);
        let end = match result {
            Ok(0) => StreamRead::Eof,
            // What else there is would be reported again, except after a hang-up.
            Ok(got) if got < asked && !hung_up => StreamRead::Empty,
            Ok(_) => StreamRead::More,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => StreamRead::More,
            Err(error) if would_block(&error) && hung_up => StreamRead::Eof,
            Err(error) if would_block(&error) => StreamRead::Empty,
            Err(_) => StreamRead::Failed,
        };
        self.mux.stream_read(id, end);
        self.resume_reading(id);
        if got > 0 {
            self.retry_service(id);
        }
        Ok(())
    }

    /// A service that was full may have room again after it was read.
    fn retry_service(&mut self, id: ProxyId) {
        if let Some(endpoint) = self.endpoints.get(id)
            && matches!(endpoint.body, Body::Stream(HostStream::Service(_)))
            && !endpoint.backlog.is_empty()
        {
            self.flush_backlog(id);
        }
    }

    /// Lets the event loop watch for input again, if it was told not to.
    pub(super) fn resume_reading(&mut self, id: ProxyId) {
        if self.mux.wants_read(id)
            && let Some(endpoint) = self.endpoints.get_mut(id)
            && !endpoint.reading
        {
            endpoint.reading = true;
            self.endpoints.change(id);
        }
    }

    /// Reads into the first `buffers` buffers, behind the places for the headers. Also returns how much was asked for.
    fn read_stream<M: GuestMemoryBackend>(
        &mut self,
        mem: &M,
        id: ProxyId,
        buffers: usize,
        max_bytes: usize,
    ) -> (usize, io::Result<usize>) {
        let broken = || (0, Err(io::ErrorKind::NotConnected.into()));
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return broken();
        };
        let Body::Stream(stream) = &mut endpoint.body else {
            return broken();
        };
        let mut parts = Parts::new();
        if let Err(error) = receive_parts(mem, self.rx.taken().take(buffers), max_bytes, &mut parts) {
            return (0, Err(error));
        }
        let asked = parts.bytes();
        let result = match stream {
            HostStream::Socket(fd) => sys::receive(fd.as_fd(), &parts),
            HostStream::Service(service) => {
                let bytes = Self::scratch(&mut self.scratch);
                let len = asked.min(bytes.len());
                let bytes = bytes.get_mut(..len).unwrap_or_default();
                match service.read(bytes) {
                    ServiceRead::Bytes(len) => Ok(parts.fill(bytes.get(..len).unwrap_or_default())),
                    ServiceRead::Empty => Err(io::ErrorKind::WouldBlock.into()),
                    ServiceRead::Eof => Ok(0),
                }
            }
        };
        // A service is asked until it is empty; nothing reports it again.
        let is_service = matches!(stream, HostStream::Service(_));
        (
            if is_service {
                result.as_ref().copied().unwrap_or(asked)
            } else {
                asked
            },
            result,
        )
    }

    /// Gives the first buffers to the driver, `got` bytes of the host's being in them. Returns how many.
    fn hand_over<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        id: ProxyId,
        got: usize,
    ) -> Result<usize, RingError> {
        let (mut left, mut buffers, mut result) = (got, 0, Ok(()));
        for chain in self.rx.taken() {
            if left == 0 || result.is_err() {
                break;
            }
            let len = left.min(capacity(chain));
            left -= len;
            let header = self.mux.stream_header(id, u32::try_from(len).unwrap_or(0));
            let written = header.is_some_and(|header| chain.write_at(mem, 0, &header.emit()).is_ok());
            let used = if written { HEADER_LEN + len } else { 0 };
            result = ring.push_used_nearby(mem, chain.head(), u32::try_from(used).unwrap_or(0));
            buffers += 1;
        }
        self.rx.given(buffers);
        result.map(|()| buffers)
    }

    fn datagram_turn<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        id: ProxyId,
    ) -> Result<(), RingError> {
        let mut read = self.read_datagram(mem, id);
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            match &mut read {
                DatagramRead::Got { more, .. } => *more = endpoint.burst.got(),
                DatagramRead::TooLong => {}
                DatagramRead::Empty => endpoint.burst.ended(),
            }
        }
        if let Some(header) = self.mux.datagram_read(id, read)
            && let Some(chain) = self.rx.oldest()
        {
            let written = chain.write_at(mem, 0, &header.emit()).is_ok();
            self.rx
                .give(ring, mem, if written { HEADER_LEN + header.len as usize } else { 0 })?;
        }
        self.resume_reading(id);
        Ok(())
    }

    /// Reads one datagram into the first buffer, behind the place for the header.
    fn read_datagram<M: GuestMemoryBackend>(&mut self, mem: &M, id: ProxyId) -> DatagramRead {
        let Some(Body::Datagram(fd)) = self.endpoints.get(id).map(|endpoint| &endpoint.body) else {
            return DatagramRead::Empty;
        };
        let mut parts = Parts::new();
        if receive_parts(mem, self.rx.taken().take(1), usize::MAX, &mut parts).is_err() {
            return DatagramRead::Empty;
        }
        // Errors are those of datagrams sent earlier; each is reported once.
        let result = (0..4)
            .map(|_| sys::receive_datagram(fd.as_fd(), &parts))
            .find(|result| match result {
                Ok(_) => true,
                Err(error) => would_block(error),
            });
        match result {
            Some(Ok(datagram)) if datagram.truncated => DatagramRead::TooLong,
            Some(Ok(datagram)) => DatagramRead::Got {
                len: u32::try_from(datagram.len).unwrap_or(0),
                from: datagram.from.and_then(from_any),
                more: true,
            },
            _ => DatagramRead::Empty,
        }
    }

    /// Asks each datagram service once for something to put into the first buffer.
    fn route_datagram_turn<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
    ) -> Result<(), RingError> {
        for (&port, service) in &mut self.datagram_services {
            let Some((guest_port, bytes)) = service.next() else {
                continue;
            };
            let fits = self.rx.oldest().is_some_and(|chain| bytes.len() <= capacity(chain));
            if !fits {
                self.mux.stats().datagrams_too_long.count();
                return Ok(());
            }
            let len = u32::try_from(bytes.len()).unwrap_or(0);
            let header = self.mux.route_datagram_header(port, guest_port, len);
            self.rx.put(ring, mem, &header, &bytes)?;
            return Ok(());
        }
        self.rx.route_datagrams = false;
        Ok(())
    }
}

/// Adds the payload parts of buffers, `max_bytes` at most. Buffers that do not fit wholly are left out after the first.
/// Into a place of the caller's: to hand so many parts back would copy a KiB.
fn receive_parts<'a, M: GuestMemoryBackend>(
    mem: &'a M,
    chains: impl Iterator<Item = &'a Chain>,
    max_bytes: usize,
    parts: &mut Parts<'a, MS<'a, M>>,
) -> io::Result<()> {
    for chain in chains {
        let limit = capacity(chain).min(max_bytes.saturating_sub(parts.bytes()));
        if let Some(slice) = chain.writable_slice(mem, HEADER_LEN, limit) {
            if !parts.push(slice) {
                return Ok(());
            }
            continue;
        }
        for slice in chain.writable_slices(mem, HEADER_LEN, limit) {
            if !parts.push(slice.map_err(io::Error::other)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}
