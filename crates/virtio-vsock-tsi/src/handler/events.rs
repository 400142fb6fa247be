//! What the event loop reports.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno as OsErrno;
use rustix::net::{self, SocketFlags, sockopt};
use vsock_proto::wire::SocketName;
use vsock_proto::{Errno, ProxyId};

use super::actions::abort_on_close;
use super::endpoint::{Body, Endpoint};
use super::{ACCEPT_PAUSE, Handler};
use crate::backend::{Backend, HostStream, UNNAMED, errno, from_any, silence};
use crate::watch::{Readiness, Watcher};

impl<B: Backend> Handler<B> {
    /// A descriptor is ready. [`serve`](Handler::serve) is to follow after the batch.
    pub fn socket_ready(&mut self, now: Duration, token: u32, readiness: Readiness, watcher: &mut dyn Watcher) {
        match ProxyId::from_token(token) {
            Some(id) => self.endpoint_ready(now, id, readiness, watcher),
            None => self.route_ready(now, token, watcher),
        }
        self.run_actions(now, watcher);
    }

    /// The time that [`next_deadline`](Handler::next_deadline) named has come. [`serve`](Handler::serve) is to follow.
    pub fn deadline_passed(&mut self, now: Duration, watcher: &mut dyn Watcher) {
        self.update_to_come.time_passed(now);
        self.mux.handle_timeout(now);
        self.run_actions(now, watcher);
        self.expire_handshakes(now, watcher);
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.resume_routes(watcher);
            for id in self.paused_listeners.drain(..) {
                self.endpoints.set_reading(id, true);
            }
        }
    }

    fn endpoint_ready(&mut self, now: Duration, id: ProxyId, readiness: Readiness, watcher: &mut dyn Watcher) {
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return;
        };
        match &endpoint.body {
            Body::Listener(_) => self.accept(now, id),
            Body::Datagram(fd) => {
                if readiness.error {
                    // What became of an earlier datagram; reading the error clears it.
                    let _ = sockopt::socket_error(fd);
                }
                if readiness.readable {
                    self.input(id);
                }
            }
            Body::Stream(_) if endpoint.connecting => self.connect_decided(now, id, readiness, watcher),
            Body::Stream(HostStream::Service(_)) => {
                self.silence(id);
                self.flush_backlog(id);
                self.mux.readable(id);
            }
            Body::Stream(HostStream::Socket(_)) => self.stream_ready(id, readiness),
        }
    }

    fn connect_decided(&mut self, now: Duration, id: ProxyId, readiness: Readiness, watcher: &mut dyn Watcher) {
        let Some(Body::Stream(HostStream::Socket(fd))) = self.endpoints.get(id).map(|endpoint| &endpoint.body) else {
            return;
        };
        let result = match sockopt::socket_error(fd) {
            Ok(Ok(())) if readiness.writable && !readiness.hangup => Ok(()),
            Ok(Ok(())) if readiness.hangup || readiness.error => Err(Errno::ECONNREFUSED),
            Ok(Ok(())) => return,
            Ok(Err(error)) | Err(error) => Err(errno(error)),
        };
        match result {
            Ok(()) => self.established(now, id),
            Err(errno) => {
                if let Some(mut endpoint) = self.endpoints.take(id) {
                    endpoint.closing(watcher);
                }
                self.mux.connected(now, id, Err(errno));
            }
        }
    }

    fn stream_ready(&mut self, id: ProxyId, readiness: Readiness) {
        if readiness.writable || readiness.hangup {
            self.flush_backlog(id);
        }
        let over = readiness.hangup || readiness.error;
        if over
            && let Some(endpoint) = self.endpoints.change(id)
            && !std::mem::replace(&mut endpoint.hung_up, true)
            && readiness.hangup
        {
            self.host_deaf(id);
        }
        if readiness.readable || over {
            self.input(id);
        }
    }

    /// A service's doorbell was heard.
    pub(super) fn silence(&self, id: ProxyId) {
        if let Some(Body::Stream(HostStream::Service(service))) = self.endpoints.get(id).map(|endpoint| &endpoint.body)
            && let Some(waker) = service.waker()
        {
            silence(waker);
        }
    }

    /// There is something to read. If that is no news, the driver is slower than the host, and the event loop need not
    /// repeat it.
    fn input(&mut self, id: ProxyId) {
        if !self.mux.readable(id) {
            self.endpoints.set_reading(id, false);
        }
    }

    fn accept(&mut self, now: Duration, id: ProxyId) {
        loop {
            if !self.mux.may_accept(id) {
                return self.endpoints.set_reading(id, false);
            }
            let Some(Body::Listener(listener)) = self.endpoints.get(id).map(|endpoint| &endpoint.body) else {
                return;
            };
            match accept_one(&listener.socket) {
                Ok((fd, peer)) => self.accepted(now, id, fd, peer),
                Err(OsErrno::CONNABORTED | OsErrno::INTR) => {}
                Err(OsErrno::AGAIN) => return,
                // No descriptor, no memory, or a rule of the host's: the client stays in the queue and would be reported
                // without a pause.
                Err(_) => {
                    self.paused_listeners.push(id);
                    self.accept_again = Some(now + ACCEPT_PAUSE);
                    return self.endpoints.set_reading(id, false);
                }
            }
        }
    }

    fn accepted(&mut self, now: Duration, listener: ProxyId, fd: OwnedFd, peer: Option<SocketName>) {
        match self.mux.accepted(now, listener, peer) {
            Some(id) => self
                .endpoints
                .insert(Endpoint::new(id, Body::Stream(HostStream::Socket(fd)))),
            None => abort_on_close(&fd),
        }
    }
}

/// Accepts one connection, without blocking on it ever, and tells who it came from.
pub(super) fn accept_one(socket: &OwnedFd) -> Result<(OwnedFd, Option<SocketName>), OsErrno> {
    let (fd, peer) = net::acceptfrom_with(socket.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    Ok((fd, peer.map_or(Some(UNNAMED), from_any)))
}
