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
use crate::backend::{Backend, HostStream, would_block};
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
        let mut chain = std::mem::take(&mut self.tx_chain);
        let mut left = true;
        for _ in 0..MAX_CHAINS {
            left = ring.pop(mem, &mut chain)?;
            if !left {
                break;
            }
            self.packet(now, mem, &chain);
            self.run_actions(now, watcher);
            ring.push_used(mem, chain.head(), 0)?;
        }
        self.tx_chain = chain;
        Ok(left)
    }

    fn packet<M: GuestMemoryBackend>(&mut self, now: Duration, mem: &M, chain: &Chain) {
        let mut bytes = [0; HEADER_LEN];
        if chain.writable_len() > 0 || chain.read_at(mem, 0, &mut bytes).is_err() {
            return self.mux.stats().dropped_malformed.count();
        }
        let header = Header::parse(&bytes);
        self.update_to_come.came(header.op == Op::CreditUpdate);
        let payload_len = chain.readable_len().saturating_sub(HEADER_LEN);
        let available = u32::try_from(payload_len).unwrap_or(u32::MAX);
        let received = if self.mux.wants_body(&header) {
            let mut body = [0; MAX_REQUEST_LEN];
            let body_len = MAX_REQUEST_LEN.min(payload_len).min(header.len as usize);
            let body = body.get_mut(..body_len).unwrap_or_default();
            if chain.read_at(mem, HEADER_LEN, body).is_err() {
                return self.mux.stats().dropped_malformed.count();
            }
            self.mux.receive(now, &header, available, body)
        } else {
            self.mux.receive(now, &header, available, &[])
        };
        match received {
            Received::Nothing => {}
            Received::Stream { id, len } => self.stream_payload(mem, chain, id, len as usize),
            Received::Datagram { id, len, addressed } => self.datagram_payload(mem, chain, id, len as usize, addressed),
            Received::RouteDatagram { port, guest_port, len } => {
                self.route_datagram(mem, chain, port, guest_port, len as usize);
            }
        }
    }

    fn stream_payload<M: GuestMemoryBackend>(&mut self, mem: &M, chain: &Chain, id: ProxyId, len: usize) {
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return self.mux.write_failed(id);
        };
        let Body::Stream(stream) = &mut endpoint.body else {
            return self.mux.write_failed(id);
        };
        let mut taken = 0;
        if endpoint.backlog.is_empty() {
            let result = match stream {
                HostStream::Socket(fd) => send_payload(fd.as_fd(), mem, chain, len),
                HostStream::Service(service) => {
                    let bytes = Self::scratch(&mut self.scratch).get_mut(..len).unwrap_or_default();
                    match chain.read_at(mem, HEADER_LEN, bytes) {
                        Ok(()) => Ok(service.write(bytes).min(len)),
                        Err(error) => Err(io::Error::other(error)),
                    }
                }
            };
            match result {
                Ok(bytes) => taken = bytes,
                Err(_) => return self.host_deaf(id),
            }
        }
        if taken < len {
            let rest = endpoint.backlog.grow(len - taken);
            if chain.read_at(mem, HEADER_LEN + taken, rest).is_err() {
                return self.host_deaf(id);
            }
            self.endpoints.change(id);
        }
        self.mux.flushed(id, u32::try_from(taken).unwrap_or(u32::MAX));
        self.after_write(id);
    }

    /// A service may have an answer to what it was given.
    fn after_write(&mut self, id: ProxyId) {
        if let Some(endpoint) = self.endpoints.get(id)
            && matches!(endpoint.body, Body::Stream(HostStream::Service(_)))
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
        if self.send_datagram(mem, chain, id, len, addressed).is_some() {
            self.mux.stats().datagrams_from_guest.count();
        } else {
            self.mux.stats().datagrams_undeliverable.count();
        }
    }

    fn send_datagram<M: GuestMemoryBackend>(
        &mut self,
        mem: &M,
        chain: &Chain,
        id: ProxyId,
        len: usize,
        addressed: bool,
    ) -> Option<()> {
        let Body::Datagram(fd) = &self.endpoints.get(id)?.body else {
            return None;
        };
        let peer = match addressed {
            true => Some(self.backend.datagram_peer(self.mux.destination(id)?).ok()?),
            false => None,
        };
        let name = peer.as_ref().map(|peer| &peer.addr);
        let mut parts = Parts::new();
        payload_parts(mem, chain, 0, len, &mut parts).ok()?;
        if parts.bytes() == len {
            // An error that an earlier datagram left behind is reported once, instead of this one's.
            return retry_once(|| sys::send(fd.as_fd(), &parts, name)).ok().map(drop);
        }
        // More pieces than one call takes: a datagram cannot go in two.
        let bytes = Self::scratch(&mut self.scratch).get_mut(..len)?;
        chain.read_at(mem, HEADER_LEN, bytes).ok()?;
        retry_once(|| send_bytes(fd.as_fd(), bytes, name)).ok().map(drop)
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
        let Some(service) = self.datagram_services.get_mut(&port) else {
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

/// Adds as much of a chain's payload as one call takes.
fn payload_parts<'a, M: GuestMemoryBackend>(
    mem: &'a M,
    chain: &'a Chain,
    from: usize,
    len: usize,
    parts: &mut Parts<'a, MS<'a, M>>,
) -> Result<(), ChainError> {
    if let Some(slice) = chain.readable_slice(mem, HEADER_LEN + from, len) {
        parts.push(slice);
        return Ok(());
    }
    for slice in chain.readable_slices(mem, HEADER_LEN + from, len) {
        if !parts.push(slice?) {
            break;
        }
    }
    Ok(())
}

/// Sends a chain's payload as far as the socket takes it.
fn send_payload<M: GuestMemoryBackend>(
    fd: std::os::fd::BorrowedFd<'_>,
    mem: &M,
    chain: &Chain,
    len: usize,
) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        let mut parts = Parts::new();
        payload_parts(mem, chain, done, len - done, &mut parts).map_err(io::Error::other)?;
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
