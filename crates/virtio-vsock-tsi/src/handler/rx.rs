//! From the host to the driver.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::bitmap::{BitmapSlice, MS};
use vm_memory::{GuestMemoryBackend, VolatileSlice};
use vsock_proto::wire::{GETNAME_REPLY_LEN, HEADER_LEN, Header, MAX_PAYLOAD_LEN, port};
use vsock_proto::{DatagramRead, MAX_TURN_PACKETS, Muxer, ProxyId, StreamRead, Transmit};

use super::Handler;
use super::endpoint::{Body, Endpoints};
use crate::backend::{Backend, HostStream, ServiceRead, StreamService, from_any, would_block};
use crate::sys::{self, Parts};
use crate::watch::Watcher;

/// A buffer with less room cannot hold any reply.
const MIN_BUFFER: usize = HEADER_LEN + 4;

/// Turns of one call. A host that floods us with datagrams nobody wants would keep us here otherwise.
const MAX_TURNS: usize = 1024;

/// Buffers of one turn whose place for the header is kept until the header is known.
const MAX_HEADS: usize = MAX_TURN_PACKETS as usize;

/// Bytes of guest memory in one piece.
type Piece<'a, M> = VolatileSlice<'a, MS<'a, M>>;

/// Where the header of a buffer goes, if that is in one piece.
type Head<'a, B> = Option<VolatileSlice<'a, B>>;

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
    /// The last turn was a datagram service's. Services and all others take turns, over calls too: one turn may take all
    /// buffers that there are.
    services_had_last: bool,
}

impl RxPath {
    /// Whether a datagram service comes next. `others` tell whether they have something too.
    fn is_services_turn(&mut self, others: bool) -> bool {
        self.services_had_last = self.route_datagrams && !(others && self.services_had_last);
        self.services_had_last
    }

    /// Takes buffers until there are `count`. Useless ones go back; a ring of those ends it, for another processor of the
    /// guest's may add them as fast as they go back.
    fn take<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        count: usize,
        stats: &vsock_proto::Stats,
    ) -> Result<bool, RingError> {
        let mut patience = ring.size();
        while self.taken < count && patience > 0 {
            if self.chains.len() <= self.taken {
                self.chains.push_back(Chain::new());
            }
            let Some(chain) = self.chains.get_mut(self.taken) else {
                return Ok(false);
            };
            if !ring.pop(mem, chain)? {
                return Ok(false);
            }
            if chain.readable_len() > 0 || chain.writable_len() < MIN_BUFFER {
                stats.rx_unusable.count();
                ring.push_used(mem, chain.head(), 0)?;
                patience -= 1;
            } else {
                self.taken += 1;
            }
        }
        Ok(self.taken >= count)
    }

    /// The buffers that were taken, oldest first.
    #[inline]
    fn taken(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().take(self.taken)
    }

    /// The oldest buffer.
    #[inline]
    fn oldest(&self) -> Option<&Chain> {
        self.chains.front().filter(|_| self.taken > 0)
    }

    /// How much payload the buffer at `index` of the taken ones has room for.
    #[inline]
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
        let result = ring.push_used(mem, chain.head(), u32::try_from(len).unwrap_or(0));
        self.given(1);
        result
    }

    /// The `count` oldest buffers are the driver's again.
    fn given(&mut self, count: usize) {
        let count = count.min(self.taken);
        self.chains.rotate_left(count);
        self.taken -= count;
    }

    /// Who asks again takes what comes first for the answer, so one to what was asked before that found no buffer is dropped.
    pub(super) fn forget_answer(&mut self, request: &Header) {
        if port::is_answered(request.dst_port)
            && let Some(Transmit::Packet { header, reply: Some(_) }) = &self.held
            && header.dst_port == request.src_port
        {
            self.held = None;
        }
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

/// What a read of `asked` bytes tells of those behind.
fn end_of(result: &io::Result<usize>, asked: usize, hung_up: bool) -> StreamRead {
    match result {
        Ok(0) => StreamRead::Eof,
        // What else there is would be reported again, except after a hang-up.
        Ok(got) if *got < asked && !hung_up => StreamRead::Empty,
        Ok(_) => StreamRead::More,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => StreamRead::More,
        Err(error) if would_block(error) && hung_up => StreamRead::Eof,
        Err(error) if would_block(error) => StreamRead::Empty,
        Err(_) => StreamRead::Failed,
    }
}

#[inline]
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
        ring.disable_notification(mem)?;
        for _ in 0..MAX_TURNS {
            let others = self.rx.held.is_some() || self.mux.wants_transmit();
            if !others && !self.rx.route_datagrams {
                return Ok(false);
            }
            if !self.rx.take(ring, mem, 1, self.mux.stats())? {
                // The driver notifies when it has added buffers; until then the host's sockets wait.
                return ring.enable_notification(mem);
            }
            if self.rx.is_services_turn(others) {
                self.route_datagram_turn(ring, mem)?;
            } else if let Some(transmit) = self.rx.held.take().or_else(|| self.mux.poll_transmit()) {
                self.transmit(ring, mem, transmit)?;
                self.run_actions(now, watcher);
            }
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
        let (buffers, room) = self.take_for(ring, mem, id, max_bytes, max_packets)?;
        let (asked, result, filled) = self.read_and_hand_over(ring, mem, id, buffers, max_bytes)?;
        let got = *result.as_ref().unwrap_or(&0);
        self.rx.gave_data |= filled > 0;
        let hung_up = self.endpoints.get_mut(id).is_none_or(|endpoint| {
            // That there was nothing more says nothing of how much comes the next time.
            if filled > 0 {
                endpoint.learn_appetite(filled, got >= room.min(max_bytes));
            }
            endpoint.hung_up
        });
        self.mux.stream_read(id, end_of(&result, asked, hung_up));
        self.resume_reading(id);
        if got > 0 {
            self.retry_service(id);
        }
        Ok(())
    }

    /// Takes as many buffers as the stream's next bytes are expected to fill. Gives how many, and how much goes into them.
    fn take_for<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        id: ProxyId,
        max_bytes: usize,
        max_packets: usize,
    ) -> Result<(usize, usize), RingError> {
        let appetite = self.endpoints.get(id).map_or(1, |endpoint| endpoint.appetite);
        let max_packets = max_packets.min(appetite);
        let (mut buffers, mut room) = (1, self.rx.capacity_of(0));
        while buffers < max_packets && room < max_bytes && self.rx.take(ring, mem, buffers + 1, self.mux.stats())? {
            room += self.rx.capacity_of(buffers);
            buffers += 1;
        }
        Ok((buffers, room))
    }

    /// Gives how much was asked of the host, what it said, and how many buffers went to the driver.
    fn read_and_hand_over<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        id: ProxyId,
        buffers: usize,
        max_bytes: usize,
    ) -> Result<(usize, io::Result<usize>, usize), RingError> {
        let (asked, result, filled, handed) = {
            // Most turns are of one buffer, and the other list costs more to lay out than such a turn to use.
            let (mut one, mut many) = ([None], None);
            let heads: &mut [_] = match buffers {
                1 => &mut one,
                _ => many.insert([const { None }; MAX_HEADS]),
            };
            let chains = || self.rx.taken().take(buffers);
            let scratch = &mut self.scratch;
            let (asked, result) = Self::read_stream(&mut self.endpoints, scratch, chains(), mem, id, max_bytes, heads);
            let got = *result.as_ref().unwrap_or(&0);
            let (filled, handed) = hand_over(&mut self.mux, chains(), ring, mem, id, got, heads);
            (asked, result, filled, handed)
        };
        self.rx.given(filled);
        handed?;
        Ok((asked, result, filled))
    }

    /// A service that was full may have room again after it was read.
    fn retry_service(&mut self, id: ProxyId) {
        if let Some(endpoint) = self.endpoints.get(id)
            && endpoint.is_service()
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

    /// Reads into buffers, behind the places for the headers. Also returns how much was asked for.
    fn read_stream<'a, M: GuestMemoryBackend>(
        endpoints: &mut Endpoints,
        scratch: &mut Vec<u8>,
        chains: impl Iterator<Item = &'a Chain>,
        mem: &'a M,
        id: ProxyId,
        max_bytes: usize,
        heads: &mut [Head<'a, MS<'a, M>>],
    ) -> (usize, io::Result<usize>) {
        let broken = || (0, Err(io::ErrorKind::NotConnected.into()));
        let Some(endpoint) = endpoints.get_mut(id) else {
            return broken();
        };
        let Body::Stream(stream) = &mut endpoint.body else {
            return broken();
        };
        let mut parts = Parts::new();
        if let Err(error) = receive_parts(mem, chains, max_bytes, &mut parts, heads) {
            return (0, Err(error));
        }
        let asked = parts.bytes();
        match stream {
            HostStream::Socket(fd) => (asked, sys::receive(fd.as_fd(), &parts)),
            HostStream::Service(service) => {
                let result = read_service(&mut **service, &parts, Self::scratch(scratch));
                // A service is asked until it is empty; nothing reports it again.
                (result.as_ref().copied().unwrap_or(asked), result)
            }
        }
    }

    fn datagram_turn<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        id: ProxyId,
    ) -> Result<(), RingError> {
        let mut heads = [None];
        let mut read = read_datagram(&self.endpoints, self.rx.oldest(), mem, id, &mut heads);
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            match &mut read {
                DatagramRead::Got { more, .. } => *more = endpoint.burst.got(),
                DatagramRead::TooLong => {}
                DatagramRead::Empty => endpoint.burst.ended(),
            }
        }
        let header = self.mux.datagram_read(id, read);
        let [head] = &heads;
        let written = self.rx.oldest().zip(header).map(|(chain, header)| {
            let written = write_header(chain, mem, head.as_ref(), &header);
            if written { HEADER_LEN + header.len as usize } else { 0 }
        });
        drop(heads);
        if let Some(len) = written {
            self.rx.give(ring, mem, len)?;
        }
        self.resume_reading(id);
        Ok(())
    }

    /// Puts the next datagram of the services into the first buffer.
    fn route_datagram_turn<M: GuestMemoryBackend>(
        &mut self,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
    ) -> Result<(), RingError> {
        let Some((port, guest_port, bytes)) = self.datagram_services.next() else {
            self.rx.route_datagrams = false;
            return Ok(());
        };
        if self.rx.oldest().is_none_or(|chain| bytes.len() > capacity(chain)) {
            self.mux.stats().datagrams_too_long.count();
            return Ok(());
        }
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        let header = self.mux.route_datagram_header(port, guest_port, len);
        self.rx.put(ring, mem, &header, &bytes)?;
        Ok(())
    }
}

/// Reads from a service into `parts`, by way of `scratch`.
fn read_service<B: BitmapSlice>(
    service: &mut dyn StreamService,
    parts: &Parts<'_, B>,
    scratch: &mut [u8],
) -> io::Result<usize> {
    let len = parts.bytes().min(scratch.len());
    let bytes = scratch.get_mut(..len).unwrap_or_default();
    match service.read(bytes) {
        ServiceRead::Bytes(len) => Ok(parts.fill(bytes.get(..len).unwrap_or_default())),
        ServiceRead::Empty => Err(io::ErrorKind::WouldBlock.into()),
        ServiceRead::Eof => Ok(0),
    }
}

/// Reads one datagram into the oldest buffer, behind the place for the header.
fn read_datagram<'a, M: GuestMemoryBackend>(
    endpoints: &Endpoints,
    oldest: Option<&'a Chain>,
    mem: &'a M,
    id: ProxyId,
    heads: &mut [Head<'a, MS<'a, M>>],
) -> DatagramRead {
    let Some(Body::Datagram(fd)) = endpoints.get(id).map(|endpoint| &endpoint.body) else {
        return DatagramRead::Empty;
    };
    let mut parts = Parts::new();
    if receive_parts(mem, oldest.into_iter(), usize::MAX, &mut parts, heads).is_err() {
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

/// Gives the driver as many of the buffers as it takes for `got` bytes of the host's that are in them. Returns how many.
fn hand_over<'a, M: GuestMemoryBackend>(
    mux: &mut Muxer,
    chains: impl Iterator<Item = &'a Chain>,
    ring: &mut Ring,
    mem: &Nearby<'_, M>,
    id: ProxyId,
    got: usize,
    heads: &[Head<'_, MS<'_, M>>],
) -> (usize, Result<(), RingError>) {
    let (mut left, mut buffers, mut result) = (got, 0, Ok(()));
    for chain in chains {
        if left == 0 || result.is_err() {
            break;
        }
        let len = left.min(capacity(chain));
        left -= len;
        let header = mux.stream_header(id, u32::try_from(len).unwrap_or(0));
        let head = heads.get(buffers).and_then(Option::as_ref);
        let written = header.is_some_and(|header| write_header(chain, mem, head, &header));
        let used = if written { HEADER_LEN + len } else { 0 };
        result = ring.push_used(mem, chain.head(), u32::try_from(used).unwrap_or(0));
        buffers += 1;
    }
    (buffers, result)
}

/// Adds the payload parts of buffers, `max_bytes` at most, and keeps where their headers go as far as there is room for
/// that. Buffers that do not fit wholly are left out after the first. Into places of the caller's: to hand so much back
/// would copy a KiB.
fn receive_parts<'a, M: GuestMemoryBackend>(
    mem: &'a M,
    chains: impl Iterator<Item = &'a Chain>,
    max_bytes: usize,
    parts: &mut Parts<'a, MS<'a, M>>,
    heads: &mut [Head<'a, MS<'a, M>>],
) -> io::Result<()> {
    let mut heads = heads.iter_mut();
    for chain in chains {
        let limit = capacity(chain).min(max_bytes.saturating_sub(parts.bytes()));
        let place = heads.next();
        if let Some((head, payload)) = whole_buffer(chain, mem, limit) {
            if !parts.push(payload) {
                return Ok(());
            }
            if let Some(place) = place {
                *place = Some(head);
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

/// The places of header and payload in a buffer that is in one piece, as those of Linux are: one look-up for both.
#[inline]
fn whole_buffer<'a, M: GuestMemoryBackend>(
    chain: &Chain,
    mem: &'a M,
    payload_len: usize,
) -> Option<(Piece<'a, M>, Piece<'a, M>)> {
    if payload_len == 0 {
        return None;
    }
    let whole = chain.writable_slice(mem, 0, HEADER_LEN + payload_len)?;
    whole.split_at(HEADER_LEN).ok()
}

#[inline]
fn write_header<M: GuestMemoryBackend, B: BitmapSlice>(
    chain: &Chain,
    mem: &M,
    head: Option<&VolatileSlice<'_, B>>,
    header: &Header,
) -> bool {
    match head {
        Some(head) => {
            head.copy_from(&header.emit());
            true
        }
        None => chain.write_at(mem, 0, &header.emit()).is_ok(),
    }
}
