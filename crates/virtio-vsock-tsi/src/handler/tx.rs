//! From the driver to the host.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{SendFlags, SocketAddrAny};
use virtio_ring::{Chain, ChainError, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;
use vm_memory::bitmap::MS;
use vsock_proto::wire::{HEADER_LEN, Header, MAX_REQUEST_LEN, Op};
use vsock_proto::{ProxyId, Received};

use super::Handler;
use super::endpoint::Body;
use super::train::{self, Packet, Train};
use crate::backend::{Backend, HostStream, StreamService, would_block};
use crate::sys::{self, Parts};
use crate::watch::Watcher;

/// Chains of one round: a whole ring of the usual size.
const MAX_CHAINS: usize = 256;

impl<B: Backend> Handler<B> {
    /// Takes what the driver sent. True when there may be more.
    pub(super) fn drain_tx<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        watcher: &mut dyn Watcher,
    ) -> Result<bool, RingError> {
        let mut train = self.train.take().unwrap_or_default();
        let left = self.take_packets(now, ring, mem, watcher, &mut train);
        // Also when the ring is broken: what the muxer was told of is to reach the host.
        let sent = self.send_train(now, ring, mem, watcher, &mut train);
        self.train = Some(train);
        sent?;
        left
    }

    /// What is in `train` in the end is still to be sent.
    fn take_packets<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        watcher: &mut dyn Watcher,
        train: &mut Train,
    ) -> Result<bool, RingError> {
        for _ in 0..MAX_CHAINS {
            if !ring.pop(mem, &mut train.last)? {
                return Ok(false);
            }
            let Some(header) = self.header(mem, &train.last) else {
                ring.push_used(mem, train.last.head(), 0)?;
                continue;
            };
            if !train.goes_on_with(&header) {
                // The packet may end a stream: the host is to have all before it.
                self.send_train(now, ring, mem, watcher, train)?;
            }
            if let Some((id, len)) = self.packet(now, mem, &train.last, &header) {
                train.add(&header, id, len);
            } else {
                self.send_train(now, ring, mem, watcher, train)?;
                self.run_actions(now, watcher);
                ring.push_used(mem, train.last.head(), 0)?;
            }
        }
        Ok(true)
    }

    /// Gives the host the packets of one stream, and the driver their chains.
    #[inline]
    fn send_train<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        watcher: &mut dyn Watcher,
        train: &mut Train,
    ) -> Result<(), RingError> {
        match train.stream() {
            Some(id) => self.send_to(id, now, ring, mem, watcher, train),
            None => Ok(()),
        }
    }

    fn send_to<M: GuestMemoryBackend>(
        &mut self,
        id: ProxyId,
        now: Duration,
        ring: &mut Ring,
        mem: &Nearby<'_, M>,
        watcher: &mut dyn Watcher,
        train: &mut Train,
    ) -> Result<(), RingError> {
        let packets = train.packets();
        self.stream_payload(mem, packets, id);
        self.run_actions(now, watcher);
        let given_back = packets
            .iter()
            .try_for_each(|packet| ring.push_used(mem, packet.chain.head(), 0));
        train.clear();
        given_back
    }

    fn header<M: GuestMemoryBackend>(&mut self, mem: &M, chain: &Chain) -> Option<Header> {
        let mut bytes = [0; HEADER_LEN];
        if chain.writable_len() > 0 || chain.read_at(mem, 0, &mut bytes).is_err() {
            self.mux.stats().dropped_malformed.count();
            return None;
        }
        Some(Header::parse(&bytes))
    }

    /// Does what a packet is for, unless it is payload of a stream: then tells of which, and how much.
    fn packet<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        mem: &M,
        chain: &Chain,
        header: &Header,
    ) -> Option<(ProxyId, usize)> {
        self.update_to_come.came(header.op == Op::CreditUpdate);
        let payload_len = chain.readable_len().saturating_sub(HEADER_LEN);
        let available = u32::try_from(payload_len).unwrap_or(u32::MAX);
        let received = if self.mux.wants_body(header) {
            self.rx.forget_answer(header);
            let mut body = [0; MAX_REQUEST_LEN];
            let body_len = MAX_REQUEST_LEN.min(payload_len).min(header.len as usize);
            let body = body.get_mut(..body_len).unwrap_or_default();
            if chain.read_at(mem, HEADER_LEN, body).is_err() {
                self.mux.stats().dropped_malformed.count();
                return None;
            }
            self.mux.receive(now, header, available, body)
        } else {
            self.mux.receive(now, header, available, &[])
        };
        match received {
            Received::Nothing => {}
            Received::Stream { id, len } => return Some((id, len as usize)),
            Received::Datagram { id, len, addressed } => self.datagram_payload(mem, chain, id, len as usize, addressed),
            Received::RouteDatagram { port, guest_port, len } => {
                self.route_datagram(mem, chain, port, guest_port, len as usize);
            }
        }
        None
    }

    fn stream_payload<M: GuestMemoryBackend>(&mut self, mem: &M, packets: &[Packet], id: ProxyId) {
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return self.mux.write_failed(id);
        };
        let Body::Stream(stream) = &mut endpoint.body else {
            return self.mux.write_failed(id);
        };
        let mut taken = 0;
        if endpoint.backlog.is_empty() {
            let result = match stream {
                HostStream::Socket(fd) => {
                    endpoint.prompt.before_sending(fd, train::total(packets));
                    send_packets(fd.as_fd(), mem, packets)
                }
                HostStream::Service(service) => {
                    write_packets(&mut **service, mem, packets, Self::scratch(&mut self.scratch))
                }
            };
            match result {
                Ok(bytes) => taken = bytes,
                Err(_) => return self.host_deaf(id),
            }
        }
        let mut is_kept = false;
        for (packet, skipped) in train::left_of(packets, taken) {
            let rest = endpoint.backlog.grow(packet.len - skipped);
            if packet.chain.read_at(mem, HEADER_LEN + skipped, rest).is_err() {
                return self.host_deaf(id);
            }
            is_kept = true;
        }
        if is_kept {
            self.endpoints.change(id);
        }
        self.mux.flushed(id, u32::try_from(taken).unwrap_or(u32::MAX));
        self.after_write(id);
    }

    /// A service may have an answer to what it was given.
    fn after_write(&mut self, id: ProxyId) {
        if let Some(endpoint) = self.endpoints.get(id)
            && endpoint.is_service()
        {
            self.mux.readable(id);
        }
    }

    /// The host takes no more of this stream; what it has sent is still to be read.
    pub(super) fn host_deaf(&mut self, id: ProxyId) {
        if let Some(endpoint) = self.endpoints.change(id) {
            endpoint.backlog.clear();
        }
        self.mux.write_failed(id);
        self.mux.readable(id);
    }

    /// Passes on what the host did not take before.
    pub(super) fn flush_backlog(&mut self, id: ProxyId) {
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return;
        };
        let Body::Stream(stream) = &mut endpoint.body else {
            return;
        };
        while !endpoint.backlog.is_empty() {
            let bytes = endpoint.backlog.bytes();
            let result = match stream {
                HostStream::Socket(fd) => {
                    endpoint.prompt.before_sending(fd, bytes.len());
                    rustix::net::send(&*fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map_err(io::Error::from)
                }
                HostStream::Service(service) => Ok(service.write(bytes)),
            };
            match result {
                Ok(0) => break,
                Ok(taken) => {
                    let guests = endpoint.backlog.consume(taken);
                    self.mux.flushed(id, u32::try_from(guests).unwrap_or(u32::MAX));
                }
                Err(error) if would_block(&error) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.host_deaf(id),
            }
        }
        self.endpoints.change(id);
        self.after_write(id);
    }

    fn datagram_payload<M: GuestMemoryBackend>(
        &mut self,
        mem: &M,
        chain: &Chain,
        id: ProxyId,
        len: usize,
        addressed: bool,
    ) {
        let sent = self.send_datagram(mem, chain, id, len, addressed);
        let stats = self.mux.stats();
        match sent {
            Ok(()) => stats.datagrams_from_guest.count(),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => stats.datagrams_too_long.count(),
            Err(_) => stats.datagrams_undeliverable.count(),
        }
    }

    fn send_datagram<M: GuestMemoryBackend>(
        &mut self,
        mem: &M,
        chain: &Chain,
        id: ProxyId,
        len: usize,
        addressed: bool,
    ) -> io::Result<()> {
        let Some(Body::Datagram(fd)) = self.endpoints.get(id).map(|endpoint| &endpoint.body) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let peer = match (addressed, self.mux.destination(id)) {
            (true, Some(name)) => Some(self.backend.datagram_peer(name).map_err(|_| io::ErrorKind::NotFound)?),
            (true, None) => return Err(io::ErrorKind::NotFound.into()),
            (false, _) => None,
        };
        let name = peer.as_ref().map(|peer| &peer.addr);
        let mut parts = Parts::new();
        payload_parts(mem, chain, 0, len, &mut parts).map_err(io::Error::other)?;
        if parts.bytes() == len {
            // An error that an earlier datagram left behind is reported once, instead of this one's.
            return retry_once(|| sys::send(fd.as_fd(), &parts, name)).map(drop);
        }
        // More pieces than one call takes: a datagram cannot go in two.
        let bytes = Self::scratch(&mut self.scratch).get_mut(..len);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        chain.read_at(mem, HEADER_LEN, bytes).map_err(io::Error::other)?;
        retry_once(|| send_bytes(fd.as_fd(), bytes, name)).map(drop)
    }

    fn route_datagram<M: GuestMemoryBackend>(
        &mut self,
        mem: &M,
        chain: &Chain,
        port: u32,
        guest_port: u32,
        len: usize,
    ) {
        let bytes = Self::scratch(&mut self.scratch).get_mut(..len).unwrap_or_default();
        let Some(service) = self.datagram_services.at(port) else {
            return self.mux.stats().datagrams_undeliverable.count();
        };
        if chain.read_at(mem, HEADER_LEN, bytes).is_ok() {
            self.mux.stats().datagrams_from_guest.count();
            service.receive(guest_port, bytes);
            self.rx.route_datagrams = true;
        }
    }
}

fn send_bytes(fd: std::os::fd::BorrowedFd<'_>, bytes: &[u8], name: Option<&SocketAddrAny>) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match name {
        Some(name) => rustix::net::sendto(fd, bytes, flags, name),
        None => rustix::net::send(fd, bytes, flags),
    }
    .map_err(io::Error::from)
}

fn retry_once(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match call() {
        Err(error) if !would_block(&error) => call(),
        result => result,
    }
}

/// Adds as much of a chain's payload as one call takes. False when there is more.
fn payload_parts<'a, M: GuestMemoryBackend>(
    mem: &'a M,
    chain: &'a Chain,
    from: usize,
    len: usize,
    parts: &mut Parts<'a, MS<'a, M>>,
) -> Result<bool, ChainError> {
    if let Some(slice) = chain.readable_slice(mem, HEADER_LEN + from, len) {
        return Ok(parts.push(slice));
    }
    for slice in chain.readable_slices(mem, HEADER_LEN + from, len) {
        if !parts.push(slice?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a service payload as far as it takes it. Tells how much that was.
fn write_packets<M: GuestMemoryBackend>(
    service: &mut dyn StreamService,
    mem: &M,
    packets: &[Packet],
    scratch: &mut [u8],
) -> io::Result<usize> {
    let mut done = 0;
    for packet in packets {
        let bytes = scratch.get_mut(..packet.len).unwrap_or_default();
        packet.chain.read_at(mem, HEADER_LEN, bytes).map_err(io::Error::other)?;
        let taken = service.write(bytes).min(packet.len);
        done += taken;
        if taken < packet.len {
            break;
        }
    }
    Ok(done)
}

/// Sends payload as far as the socket takes it. Tells how much that was.
fn send_packets<M: GuestMemoryBackend>(
    fd: std::os::fd::BorrowedFd<'_>,
    mem: &M,
    packets: &[Packet],
) -> io::Result<usize> {
    let len = train::total(packets);
    let mut done = 0;
    while done < len {
        let mut parts = Parts::new();
        for (packet, skipped) in train::left_of(packets, done) {
            let left = packet.len - skipped;
            if !payload_parts(mem, &packet.chain, skipped, left, &mut parts).map_err(io::Error::other)? {
                break;
            }
        }
        match sys::send(fd, &parts, None) {
            Ok(sent) => {
                done += sent;
                if sent < parts.bytes() {
                    break;
                }
            }
            Err(error) if would_block(&error) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
