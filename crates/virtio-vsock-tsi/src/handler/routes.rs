//! Host clients of plain vsock ports (TSI specification, 8.2).
//!
//! A route's socket leads to one port of the guest, or, in the scheme that Firecracker's users know, to the port that
//! the client names in its first line: `CONNECT <port>\n`, answered by `OK <number>\n` when the guest has accepted.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno as OsErrno;
use rustix::net::{self, RecvFlags};
use vsock_proto::ProxyId;
use vsock_proto::wire::port;

use super::endpoint::{Body, Endpoint};
use super::events::accept_one;
use super::{ACCEPT_PAUSE, Handler};
use crate::backend::{Backend, HostStream, RouteKind, silence};
use crate::watch::{Interest, Watcher};

/// Tokens of route sockets, behind those of proxies.
const ROUTE_TOKENS: u32 = (ProxyId::SLOTS as u32) << 16;
/// Tokens of datagram services' doorbells.
const SERVICE_TOKENS: u32 = 0xf400_0000;
/// Tokens of clients that have not named their port yet.
const HANDSHAKE_TOKENS: u32 = 0xf800_0000;
/// So many clients may be about to name their port.
const MAX_HANDSHAKES: usize = 64;
/// Clients that one event lets in, so that others get their turn.
const MAX_ACCEPTS: usize = 64;
/// How long a client may take to name its port.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// `CONNECT 4294967295\n` and some room.
const MAX_LINE: usize = 32;

const READ: Interest = Interest {
    readable: true,
    writable: false,
};

/// A client that has not named its port yet.
pub(super) struct Handshake {
    fd: OwnedFd,
    line: Vec<u8>,
    pub(super) deadline: Duration,
}

/// What a client's first line has come to.
enum Line {
    Incomplete,
    Port(u32),
    Invalid,
}

impl<B: Backend> Handler<B> {
    /// Starts to listen for host clients and for datagram services. To be called when the driver is ready, and again after each reset and each
    /// [`stop`](Self::stop).
    ///
    /// # Errors
    /// When the event loop refuses a socket.
    pub fn start(&mut self, watcher: &mut dyn Watcher) -> std::io::Result<()> {
        // They may have something already.
        self.rx.route_datagrams = true;
        let routes = self.routes.iter().map(|route| route.listener.socket.as_fd());
        let services = self.datagram_services.wakers();
        let services = services.map(|(index, waker)| (service_token(index), waker));
        for (token, fd) in (ROUTE_TOKENS..).zip(routes).chain(services) {
            match watcher.add(fd, token, READ) {
                // It outlives a reset, and the event loop may have too.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => watcher.modify(fd, token, READ)?,
                result => result?,
            }
        }
        Ok(())
    }

    /// Ends all connections and takes every descriptor out of the event loop, which would report for ever what nobody looks
    /// at any more. To be called when [`serve`](Self::serve) has failed, and in the place of [`reset`](Self::reset) when the
    /// event loop outlives one.
    pub fn stop(&mut self, watcher: &mut dyn Watcher) {
        self.endpoints.unwatch_all(watcher);
        let handshakes = self.handshakes.iter().flatten().map(|handshake| handshake.fd.as_fd());
        let listeners = self.routes.iter().map(|route| route.listener.socket.as_fd());
        let services = self.datagram_services.wakers().map(|(_, waker)| waker);
        for fd in handshakes.chain(listeners).chain(services) {
            let _ = watcher.remove(fd);
        }
        self.reset();
    }

    pub(super) fn route_ready(&mut self, now: Duration, token: u32, watcher: &mut dyn Watcher) {
        if let Some(index) = token.checked_sub(HANDSHAKE_TOKENS) {
            return self.handshake_ready(now, index as usize, watcher);
        }
        if let Some(index) = token.checked_sub(SERVICE_TOKENS) {
            return self.service_ready(index as usize);
        }
        for _ in 0..MAX_ACCEPTS {
            let Some(route) = self.routes.get(token.wrapping_sub(ROUTE_TOKENS) as usize) else {
                return;
            };
            let kind = route.kind;
            match accept_one(&route.listener.socket) {
                Ok((fd, _)) => match kind {
                    RouteKind::Port(port) => self.open_to_guest(now, port, fd, false),
                    RouteKind::Multiplex => self.start_handshake(now, fd, watcher),
                },
                Err(OsErrno::CONNABORTED | OsErrno::INTR) => {}
                Err(OsErrno::AGAIN) => return,
                // No descriptor, no memory: the client stays in the queue and would be reported without a pause.
                Err(_) => {
                    let _ = watcher.modify(route.listener.socket.as_fd(), token, Interest::default());
                    self.accept_again = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn service_ready(&mut self, index: usize) {
        if let Some(waker) = self.datagram_services.waker(index) {
            silence(waker);
            self.rx.route_datagrams = true;
        }
    }

    pub(super) fn resume_routes(&self, watcher: &mut dyn Watcher) {
        for (token, route) in (ROUTE_TOKENS..).zip(&self.routes) {
            let _ = watcher.modify(route.listener.socket.as_fd(), token, READ);
        }
    }

    /// A client that cannot be taken sees its connection closed.
    fn open_to_guest(&mut self, now: Duration, guest_port: u32, fd: OwnedFd, greet: bool) {
        if let Some(id) = self.mux.open_to_guest(now, guest_port) {
            let mut endpoint = Endpoint::new(id, Body::Stream(HostStream::Socket(fd)));
            endpoint.greet = greet;
            self.endpoints.insert(endpoint);
        }
    }

    fn start_handshake(&mut self, now: Duration, fd: OwnedFd, watcher: &mut dyn Watcher) {
        let free = self.handshakes.iter().position(Option::is_none);
        if free.is_none() && self.handshakes.len() >= MAX_HANDSHAKES {
            let stats = self.mux.stats();
            stats.over_limit.count();
            return stats.connections_refused.count();
        }
        let index = free.unwrap_or_else(|| {
            self.handshakes.push(None);
            self.handshakes.len() - 1
        });
        let token = HANDSHAKE_TOKENS + u32::try_from(index).unwrap_or(0);
        if watcher.add(fd.as_fd(), token, READ).is_ok()
            && let Some(place) = self.handshakes.get_mut(index)
        {
            *place = Some(Handshake {
                fd,
                line: Vec::new(),
                deadline: now + HANDSHAKE_TIMEOUT,
            });
        }
    }

    fn handshake_ready(&mut self, now: Duration, index: usize, watcher: &mut dyn Watcher) {
        let Some(place) = self.handshakes.get_mut(index) else {
            return;
        };
        let Some(handshake) = place else { return };
        let line = handshake.read();
        if matches!(line, Line::Incomplete) {
            return;
        }
        let Some(handshake) = place.take() else { return };
        let _ = watcher.remove(handshake.fd.as_fd());
        if let Line::Port(port) = line {
            self.open_to_guest(now, port, handshake.fd, true);
        }
    }

    pub(super) fn expire_handshakes(&mut self, now: Duration, watcher: &mut dyn Watcher) {
        for place in &mut self.handshakes {
            if let Some(handshake) = place.take_if(|handshake| handshake.deadline <= now) {
                let _ = watcher.remove(handshake.fd.as_fd());
            }
        }
    }
}

fn service_token(index: usize) -> u32 {
    SERVICE_TOKENS + u32::try_from(index).unwrap_or(0)
}

impl Handshake {
    /// Reads up to the end of the line and no further: what follows is the guest's.
    fn read(&mut self) -> Line {
        let mut ahead = [0; MAX_LINE];
        let peeked = match net::recv(&self.fd, &mut ahead, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Line::Invalid,
            Ok((len, _)) => ahead.get(..len).unwrap_or_default(),
            Err(OsErrno::AGAIN | OsErrno::INTR) => return Line::Incomplete,
            Err(_) => return Line::Invalid,
        };
        let end = peeked.iter().position(|&byte| byte == b'\n');
        let take = end.map_or(peeked.len(), |at| at + 1);
        let mut taken = [0; MAX_LINE];
        let place = taken.get_mut(..take).unwrap_or_default();
        match net::recv(&self.fd, place, RecvFlags::DONTWAIT) {
            Ok((len, _)) if len == take => self.line.extend(taken.iter().take(take)),
            _ => return Line::Invalid,
        }
        match end {
            Some(_) => parse_line(&self.line).map_or(Line::Invalid, Line::Port),
            None if self.line.len() >= MAX_LINE => Line::Invalid,
            None => Line::Incomplete,
        }
    }
}

fn parse_line(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let digits = line.strip_suffix('\r').unwrap_or(line).strip_prefix("CONNECT ")?;
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|&number| !matches!(number, 0 | port::ANY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_lines_table() {
        for (line, port) in [
            ("CONNECT 52\n", Some(52)),
            ("CONNECT 52\r\n", Some(52)),
            ("CONNECT 4294967294\n", Some(4_294_967_294)),
            ("CONNECT 4294967295\n", None),
            ("CONNECT 4294967296\n", None),
            ("CONNECT 0\n", None),
            ("CONNECT \n", None),
            ("CONNECT +5\n", None),
            ("connect 52\n", None),
            ("CONNECT 52", None),
            ("\n", None),
        ] {
            assert_eq!(parse_line(line.as_bytes()), port, "{line:?}");
        }
    }
}
