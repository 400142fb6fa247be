//! What host sockets report.

use std::time::Duration;

use super::proxy::{Origin, State, Waiter};
use super::{Action, Muxer, Turn};
use crate::errno::Errno;
use crate::ids::{Key, ProxyId};
use crate::mux::replies::Ticket;
use crate::stream::Stream;
use crate::wire::{Reply, SocketKind, SocketName};

impl Muxer {
    /// A host connect is over.
    pub fn connected(&mut self, now: Duration, id: ProxyId, result: Result<(), Errno>) {
        let Some(proxy) = self.table.get_mut(id) else { return };
        let State::Connecting(waiter) = proxy.state else { return };
        if result.is_err() {
            self.stats.connections_refused.count();
        }
        match (waiter, result) {
            (Waiter::Control(ticket), Ok(())) => {
                proxy.state = State::AwaitRequest;
                let timeout = self.config.limits.request_timeout;
                self.set_timeout(id, now, timeout);
                self.replies.answer(ticket, Reply::Result(0));
            }
            (Waiter::Control(ticket), Err(errno)) => {
                proxy.state = State::Idle;
                proxy.readable = false;
                self.replies.refuse(ticket, errno);
            }
            (Waiter::Request { buf_alloc, fwd_cnt }, Ok(())) => self.open_outbound(id, buf_alloc, fwd_cnt),
            (Waiter::Request { .. }, Err(_)) => {
                // There is no socket left to close.
                proxy.state = State::Closed;
                self.table.enqueue(id, Turn::Urgent);
            }
        }
    }

    /// A datagram socket is connected, and this is its peer as the host's kernel names it; or it is not.
    pub fn datagram_connected(&mut self, id: ProxyId, result: Result<SocketName, Errno>) {
        let Some(State::Datagram(datagram)) = self.table.get_mut(id).map(|proxy| &mut proxy.state) else {
            return;
        };
        let waiter = datagram.connect_ticket.take();
        let asked = datagram.pending_peer.take();
        let code = reply_code(&result);
        if let Ok(peer) = result {
            datagram.open = true;
            datagram.host_peer = Some(peer);
            datagram.guest_peer = asked.or(datagram.guest_peer.take());
        }
        if let Some(ticket) = waiter {
            self.replies.answer(ticket, Reply::Result(code));
        }
    }

    /// The host's end of a proxy is of no use: its event loop does not take it.
    pub fn lost(&mut self, id: ProxyId) {
        match self.table.get_mut(id).map(|proxy| &mut proxy.state) {
            Some(State::Stream(stream)) => {
                let abort = stream.window.unflushed() > 0;
                self.reset_stream(id, abort);
            }
            Some(State::Listening(_)) => {
                self.stats.listeners_refused.count();
                self.drop_proxy(id, true);
            }
            // The next destination that the guest names makes another.
            Some(State::Datagram(datagram)) if datagram.open => {
                datagram.closed();
                self.stats.datagrams_undeliverable.count();
                self.actions.push_back(Action::Close { id, abort: false });
            }
            _ => {}
        }
    }

    /// A host client wants to reach a plain vsock port of the guest. `None`: it cannot be taken.
    pub fn open_to_guest(&mut self, now: Duration, guest_port: u32) -> Option<ProxyId> {
        self.request_guest(now, guest_port, Origin::RouteIn)
    }

    pub(super) fn request_guest(&mut self, now: Duration, guest_port: u32, origin: Origin) -> Option<ProxyId> {
        let id = self.new_request(now, guest_port, origin);
        if id.is_none() {
            self.stats.connections_refused.count();
        }
        id
    }

    fn new_request(&mut self, now: Duration, guest_port: u32, origin: Origin) -> Option<ProxyId> {
        if self.table.is_full() {
            self.stats.over_limit.count();
            return None;
        }
        let window = self.take_window()?;
        let config = &self.config;
        let host_port = self
            .table
            .choose_host_port(guest_port, |port| Muxer::is_reserved(config, port));
        let key = Key { guest_port, host_port };
        let state = State::Stream(Box::new(Stream::requesting(window)));
        let Some(id) = self
            .table
            .insert(Muxer::new_proxy(key, SocketKind::Stream, origin, state))
        else {
            self.windows.give_back(window);
            return None;
        };
        self.forget_resets(key);
        let timeout = self.config.limits.response_timeout;
        self.set_timeout(id, now, timeout);
        self.settle(id);
        Some(id)
    }

    /// A datagram socket was made, or not.
    pub fn datagram_opened(&mut self, id: ProxyId, result: Result<(), Errno>) {
        if let Some(State::Datagram(datagram)) = self.table.get_mut(id).map(|proxy| &mut proxy.state) {
            datagram.open = result.is_ok();
        }
    }

    /// Where the next datagram of a socket goes.
    pub fn destination(&self, id: ProxyId) -> Option<&SocketName> {
        match &self.table.get(id)?.state {
            State::Datagram(datagram) => datagram.host_destination.as_ref(),
            _ => None,
        }
    }

    /// The name that an [`Action::QueryName`](super::Action::QueryName) asked for.
    pub fn named(&mut self, id: ProxyId, ticket: Ticket, result: Result<SocketName, Errno>) {
        let family = self.table.get(id).and_then(|proxy| proxy.origin.family());
        let name = match (result, family) {
            (Ok(name), Some(family)) => {
                let name = name.in_family(family).canonical();
                name.filter(|name| name.family() == family)
                    .ok_or(Errno::ENOTCONN.reply())
            }
            (Ok(_), None) => Err(Errno::ENOTCONN.reply()),
            (Err(errno), _) => Err(errno.reply()),
        };
        self.replies.answer(ticket, Reply::Name(name));
    }

    /// A host socket has something to read, or has come to its end. False if that was known already or is of no use:
    /// the caller then stops asking until [`wants_read`](Self::wants_read).
    pub fn readable(&mut self, id: ProxyId) -> bool {
        let Some(proxy) = self.table.get_mut(id) else {
            return false;
        };
        if !proxy.state.can_use_input() || std::mem::replace(&mut proxy.readable, true) {
            return false;
        }
        match &proxy.state {
            State::Datagram(_) => self.table.enqueue(id, Turn::Data),
            _ => self.settle(id),
        }
        true
    }

    /// Whether the caller is to report when a host socket has something to read.
    #[inline]
    pub fn wants_read(&self, id: ProxyId) -> bool {
        self.table
            .get(id)
            .is_some_and(|proxy| !proxy.readable && proxy.state.can_use_input())
    }

    /// The host took `len` bytes of a stream.
    pub fn flushed(&mut self, id: ProxyId, len: u32) {
        if let Some(stream) = self.stream_mut(id) {
            stream.flushed(len);
            self.settle(id);
        }
    }

    /// The host takes no more of a stream. What it did not take is to be dropped; what it has sent is still read.
    pub fn write_failed(&mut self, id: ProxyId) {
        if let Some(stream) = self.stream_mut(id) {
            stream.host_deaf();
            self.settle(id);
        }
    }

    /// Whether a stream is open: its guest has accepted or was answered.
    pub fn is_open(&self, id: ProxyId) -> bool {
        matches!(self.table.get(id).map(|proxy| &proxy.state), Some(State::Stream(stream)) if stream.is_open())
    }
}

pub(super) fn reply_code<T>(result: &Result<T, Errno>) -> i32 {
    result.as_ref().map_or_else(|errno| errno.reply(), |_| 0)
}
