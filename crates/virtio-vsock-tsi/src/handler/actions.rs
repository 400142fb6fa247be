//! What the muxer asks of host sockets.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{self, RecvFlags, Shutdown, sockopt};
use vsock_proto::wire::{Family, SocketName};
use vsock_proto::{Action, Errno, ProxyId};

use super::Handler;
use super::endpoint::{Body, Endpoint};
use crate::backend::{Backend, Connection, HostStream, UNNAMED, errno, from_any};
use crate::watch::Watcher;

/// What a host peer sent and the guest will not read is thrown away before a close, so that the close is an orderly
/// one; but not without end.
const MAX_DISCARD: usize = 1 << 20;

impl<B: Backend> Handler<B> {
    /// Asked after each packet, most of which leave nothing to do.
    #[inline]
    pub(super) fn run_actions(&mut self, now: Duration, watcher: &mut dyn Watcher) {
        if self.mux.has_actions() {
            self.run_all(now, watcher);
        }
    }

    fn run_all(&mut self, now: Duration, watcher: &mut dyn Watcher) {
        while let Some(action) = self.mux.poll_action() {
            self.run(now, action, watcher);
        }
    }

    fn run(&mut self, now: Duration, action: Action, watcher: &mut dyn Watcher) {
        match action {
            Action::Connect { id, to } => {
                let result = self.backend.connect(&to);
                self.take_connection(now, id, result);
            }
            Action::ConnectRoute { id, port } => {
                let result = self.backend.connect_route(port);
                self.take_connection(now, id, result);
            }
            Action::Listen { id, at, backlog } => self.listen(id, &at, backlog),
            Action::ResumeAccept { id } => self.endpoints.set_reading(id, true),
            Action::OpenDatagram { id, family } => {
                let result = self.open_datagram(id, family);
                self.mux.datagram_opened(id, result);
            }
            Action::ConnectDatagram { id, to } => {
                let result = self.connect_datagram(id, to);
                self.mux.datagram_connected(id, result);
            }
            Action::QueryName { id, own, ticket } => {
                let name = self.name_of(id, own);
                self.mux.named(id, ticket, name);
            }
            Action::Opened { id } => self.opened(id),
            Action::ShutdownWrite { id } => self.shut_down(id, Shutdown::Write),
            Action::ShutdownRead { id } => self.shut_down(id, Shutdown::Read),
            Action::Close { id, abort } => self.close(id, abort, watcher),
        }
    }

    fn take_connection(&mut self, now: Duration, id: ProxyId, result: Result<Connection, Errno>) {
        match result {
            Err(errno) => self.mux.connected(now, id, Err(errno)),
            Ok(connection) => {
                let established = connection.established;
                self.endpoints.insert(Endpoint::connection(id, connection));
                if established {
                    self.established(now, id);
                }
            }
        }
    }

    /// A host connect succeeded.
    pub(super) fn established(&mut self, now: Duration, id: ProxyId) {
        if let Some(endpoint) = self.endpoints.change(id) {
            endpoint.connecting = false;
            endpoint.reading = true;
        }
        self.mux.connected(now, id, Ok(()));
    }

    fn listen(&mut self, id: ProxyId, at: &SocketName, backlog: u16) {
        let result = self.backend.listen(at, backlog);
        if let Err(errno) = &result {
            self.not_published(at, *errno);
        }
        let result = result.map(|listener| {
            let name = listener.at.clone();
            let mut endpoint = Endpoint::new(id, Body::Listener(listener));
            endpoint.reading = true;
            self.endpoints.insert(endpoint);
            name
        });
        self.mux.listening(id, result);
    }

    /// The guest's program listens all the same, in the guest, and its user wonders. A guest can try any number of times.
    fn not_published(&mut self, at: &SocketName, errno: Errno) {
        if !std::mem::replace(&mut self.said_not_published, true) {
            tracing::warn!(
                ?at,
                ?errno,
                "cannot listen for the guest; further ones are only counted"
            );
        }
    }

    fn open_datagram(&mut self, id: ProxyId, family: Family) -> Result<(), Errno> {
        let fd = self.backend.datagram(family)?;
        let mut endpoint = Endpoint::new(id, Body::Datagram(fd));
        endpoint.reading = true;
        self.endpoints.insert(endpoint);
        Ok(())
    }

    fn connect_datagram(&mut self, id: ProxyId, to: SocketName) -> Result<SocketName, Errno> {
        let fresh = self.endpoints.get(id).is_none();
        if fresh {
            self.open_datagram(id, to.family())?;
        }
        let result = self.connect_datagram_socket(id, to);
        if fresh && result.is_err() {
            self.endpoints.take(id);
        }
        result
    }

    fn connect_datagram_socket(&mut self, id: ProxyId, to: SocketName) -> Result<SocketName, Errno> {
        let peer = self.backend.datagram_peer(&to)?;
        let Some(Body::Datagram(fd)) = self.endpoints.get(id).map(|endpoint| &endpoint.body) else {
            return Err(Errno::EINVAL);
        };
        net::connect(fd, &peer.addr).map_err(errno)?;
        let name = net::getpeername(fd).ok().flatten().and_then(from_any);
        if to.family() == Family::Unix
            && let Some(endpoint) = self.endpoints.get_mut(id)
        {
            endpoint.peer = Some(to.clone());
        }
        Ok(name.unwrap_or(to))
    }

    fn name_of(&self, id: ProxyId, own: bool) -> Result<SocketName, Errno> {
        let endpoint = self.endpoints.get(id).ok_or(Errno::ENOTCONN)?;
        let fd = match &endpoint.body {
            Body::Listener(listener) if own => return Ok(listener.at.clone()),
            Body::Listener(_) | Body::Stream(HostStream::Service(_)) => return Err(Errno::ENOTCONN),
            Body::Stream(HostStream::Socket(fd)) | Body::Datagram(fd) => fd,
        };
        let addr = match (own, &endpoint.peer) {
            (false, Some(peer)) => return Ok(peer.clone()),
            (false, None) => net::getpeername(fd).map_err(errno)?,
            (true, _) => Some(net::getsockname(fd).map_err(errno)?),
        };
        addr.map_or(Some(UNNAMED), from_any).ok_or(Errno::ENOTCONN)
    }

    fn opened(&mut self, id: ProxyId) {
        let host_port = self.mux.key(id).map_or(0, |key| key.host_port);
        let wants_read = self.mux.wants_read(id);
        let Some(endpoint) = self.endpoints.change(id) else {
            return;
        };
        endpoint.reading |= wants_read;
        if std::mem::take(&mut endpoint.greet) {
            endpoint.backlog.greet(format!("OK {host_port}\n").as_bytes());
        }
        // It may speak first.
        if endpoint.is_service() {
            self.mux.readable(id);
        }
        self.flush_backlog(id);
    }

    fn shut_down(&mut self, id: ProxyId, how: Shutdown) {
        match self.endpoints.get_mut(id).map(|endpoint| &mut endpoint.body) {
            Some(Body::Stream(HostStream::Socket(fd))) => {
                // ENOTCONN: the peer has gone, which reading will tell.
                let _ = net::shutdown(&*fd, how);
            }
            Some(Body::Stream(HostStream::Service(service))) if how == Shutdown::Write => {
                service.guest_finished();
                self.mux.readable(id);
            }
            _ => {}
        }
    }

    fn close(&mut self, id: ProxyId, abort: bool, watcher: &mut dyn Watcher) {
        let Some(mut endpoint) = self.endpoints.take(id) else {
            return;
        };
        endpoint.closing(watcher);
        if let Body::Stream(HostStream::Socket(fd)) = &endpoint.body {
            if abort {
                abort_on_close(fd);
            } else {
                discard(fd, Self::scratch(&mut self.scratch));
            }
        }
    }

    /// Tells the event loop what changed.
    pub(super) fn sync(&mut self, now: Duration, watcher: &mut dyn Watcher) {
        while let Some(id) = self.endpoints.next_changed() {
            let Some(endpoint) = self.endpoints.get_mut(id) else {
                continue;
            };
            if let Err(error) = endpoint.sync(watcher) {
                let connecting = endpoint.connecting;
                self.endpoints.refused(&error);
                self.lost(now, id, connecting);
                self.run_actions(now, watcher);
            }
        }
    }

    /// A socket that nobody can wait for is of no use.
    fn lost(&mut self, now: Duration, id: ProxyId, connecting: bool) {
        if connecting {
            self.endpoints.take(id);
            self.mux.connected(now, id, Err(Errno::ENOBUFS));
        } else {
            self.mux.lost(id);
        }
    }
}

/// The peer is to see a reset.
pub(super) fn abort_on_close(fd: &OwnedFd) {
    let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}

/// Throws away what a peer has sent, as far as it is there. Returns how many bytes that were.
pub(super) fn discard(fd: &OwnedFd, scratch: &mut [u8]) -> usize {
    let mut discarded = 0;
    while discarded < MAX_DISCARD {
        match net::recv(fd.as_fd(), &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((len, _)) if len > 0 => discarded += len,
            _ => break,
        }
    }
    discarded
}
