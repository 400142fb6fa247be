//! TSI control requests (TSI specification, 5 and 16.3).

use std::time::Duration;

use super::proxy::{Origin, State, Waiter};
use super::{Action, MAX_TOMBSTONES, Muxer, Reply, Ticket};
use crate::errno::Errno;
use crate::ids::{Key, ProxyId};
use crate::policy::{Operation, Question, Verdict};
use crate::wire::{Family, NameError, Request, SocketKind, SocketName, UnixName, port};

impl Muxer {
    pub(super) fn control_request(&mut self, now: Duration, key: Key, body: &[u8]) {
        let request = Request::parse(key.host_port, body);
        if request.is_err() {
            self.stats.control_malformed.count();
        }
        if !port::is_answered(key.host_port) {
            return self.silent_request(now, request.ok());
        }
        self.withdraw(key.guest_port);
        let Some(ticket) = self.replies.begin(key.guest_port, key.host_port) else {
            return self.stats.over_limit.count();
        };
        if let Err(errno) = self.answered_request(now, ticket, request.ok()) {
            self.replies.refuse(ticket, errno);
        }
    }

    /// A request that gets an answer: its error from the caller, anything else from here, now or later.
    fn answered_request(&mut self, now: Duration, ticket: Ticket, request: Option<Request>) -> Result<(), Errno> {
        match request {
            Some(Request::Connect { svm_port, to }) => self.connect(now, ticket, svm_port, to),
            Some(Request::Listen {
                svm_port,
                vm_port,
                backlog,
                at,
            }) => self.listen(ticket, svm_port, vm_port, backlog, at),
            Some(Request::Accept { svm_port, nonblocking }) => self.accept(ticket, svm_port, nonblocking),
            Some(Request::GetName {
                svm_port,
                svm_peer_port,
                own,
            }) => {
                let key = Key {
                    guest_port: svm_port,
                    host_port: svm_peer_port,
                };
                self.get_name(ticket, key, own)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// A request that never gets an answer.
    fn silent_request(&mut self, now: Duration, request: Option<Request>) {
        match request {
            Some(Request::Create { svm_port, family, kind }) => self.create(svm_port, family, kind),
            Some(Request::SendtoAddr { svm_port, to }) => self.sendto_addr(svm_port, to),
            Some(Request::Release {
                svm_port,
                svm_peer_port,
            }) => {
                let key = Key {
                    guest_port: svm_port,
                    host_port: svm_peer_port,
                };
                self.release(now, key);
            }
            _ => {}
        }
    }

    fn create(&mut self, svm_port: u32, family: u16, kind: u16) {
        let key = tsi_key(svm_port);
        let Some(kind) = SocketKind::from_number(kind) else {
            return self.refuse_create(key, Errno::EINVAL);
        };
        if matches!(svm_port, 0 | port::ANY) {
            return self.stats.control_malformed.count();
        }
        let Some(family) = Family::from_number(family).filter(|&family| self.carries(family)) else {
            return self.refuse_create(key, Errno::EAFNOSUPPORT);
        };
        self.tombstones.retain(|(of, _)| *of != key);
        if let Some(old) = self.table.find(kind, key) {
            // Its RELEASE got lost, or never was.
            if !self.orphan(old) {
                self.drop_proxy(old, true);
            }
        }
        let state = match kind {
            SocketKind::Stream => State::Idle,
            SocketKind::Datagram => State::Datagram(Box::default()),
        };
        let proxy = Muxer::new_proxy(key, kind, Origin::Tsi(family), state);
        if self.table.insert(proxy).is_none() {
            self.stats.over_limit.count();
            self.refuse_create(key, Errno::EMFILE);
        }
    }

    pub(super) fn carries(&self, family: Family) -> bool {
        match family {
            Family::Unix => self.config.tsi.unix,
            Family::Inet | Family::Inet6 => self.config.tsi.inet,
        }
    }

    /// A refused PROXY_CREATE gets no reply; the request that follows gets this one.
    fn refuse_create(&mut self, key: Key, errno: Errno) {
        self.tombstones.retain(|(of, _)| *of != key);
        if self.tombstones.len() >= MAX_TOMBSTONES {
            self.tombstones.pop_front();
        }
        self.tombstones.push_back((key, errno));
    }

    pub(super) fn tombstone(&self, key: Key, otherwise: Errno) -> Errno {
        self.tombstones
            .iter()
            .find(|(of, _)| *of == key)
            .map_or(otherwise, |&(_, errno)| errno)
    }

    /// The messages do not say which kind of socket they mean. A guest's kernel draws the ports of both from one
    /// counter, so there are two only in a hostile one.
    pub(super) fn find_tsi(&self, svm_port: u32) -> Option<ProxyId> {
        self.table.find_any(tsi_key(svm_port))
    }

    pub(super) fn named_in_family(
        &self,
        id: ProxyId,
        name: Result<SocketName, NameError>,
    ) -> Result<SocketName, Errno> {
        let family = self.table.get(id).and_then(|proxy| proxy.origin.family());
        let name = name.ok().filter(|name| Some(name.family()) == family);
        name.ok_or_else(|| {
            self.stats.control_malformed.count();
            Errno::EINVAL
        })
    }

    fn connect(
        &mut self,
        now: Duration,
        ticket: Ticket,
        svm_port: u32,
        to: Result<SocketName, NameError>,
    ) -> Result<(), Errno> {
        let id = self
            .find_tsi(svm_port)
            .ok_or_else(|| self.tombstone(tsi_key(svm_port), Errno::ECONNREFUSED))?;
        let to = usable_destination(self.named_in_family(id, to)?)?;
        if self.joins_connect(id, ticket)? {
            return Ok(());
        }
        let kind = self.table.get(id).ok_or(Errno::EINVAL)?.kind;
        let resolved = self.resolve(Operation::Connect, kind, to.clone())?;
        if !self.connects.take(now) {
            self.stats.over_limit.count();
            if kind == SocketKind::Stream {
                self.stats.connections_refused.count();
            }
            return Err(Errno::ENOBUFS);
        }
        let proxy = self.table.get_mut(id).ok_or(Errno::EINVAL)?;
        if let State::Datagram(datagram) = &mut proxy.state {
            datagram.connect_ticket = Some(ticket);
            datagram.pending_peer = Some(to);
            self.actions.push_back(Action::ConnectDatagram { id, to: resolved });
        } else {
            proxy.state = State::Connecting(Waiter::Control(ticket));
            self.actions.push_back(Action::Connect { id, to: resolved });
        }
        Ok(())
    }

    /// Whether an earlier CONNECT of the same socket does for this one too.
    fn joins_connect(&mut self, id: ProxyId, ticket: Ticket) -> Result<bool, Errno> {
        match &mut self.table.get_mut(id).ok_or(Errno::EINVAL)?.state {
            State::Idle | State::Datagram(_) => Ok(false),
            State::Connecting(waiter) => {
                // The first caller was interrupted.
                if let Waiter::Control(older) = std::mem::replace(waiter, Waiter::Control(ticket)) {
                    self.replies.cancel(older);
                }
                Ok(true)
            }
            State::AwaitRequest => {
                self.replies.answer(ticket, Reply::Result(0));
                Ok(true)
            }
            State::Listening(_) => Err(Errno::EINVAL),
            State::Stream(_) => Err(Errno::EISCONN),
            State::Closed => Err(Errno::ECONNREFUSED),
        }
    }

    /// Where a destination really is: after the policy, and for a published port of the guest's own, the host's side
    /// of it, since the guest's own stack does not listen on what it published.
    pub(super) fn resolve(
        &mut self,
        operation: Operation,
        kind: SocketKind,
        name: SocketName,
    ) -> Result<SocketName, Errno> {
        if kind == SocketKind::Stream
            && operation == Operation::Connect
            && let Some(published) = self.hairpin(&name)
        {
            return Ok(published);
        }
        match self.judge(&Question {
            operation,
            kind,
            name: &name,
        }) {
            Verdict::Allow => Ok(name),
            Verdict::Rewrite(other) if kind == SocketKind::Datagram => other.said_in(name.family()),
            Verdict::Rewrite(other) => Ok(other),
            Verdict::Deny(errno) => Err(errno),
        }
    }

    fn hairpin(&self, to: &SocketName) -> Option<SocketName> {
        let to = to.inet().filter(|to| {
            let ip = to.ip().to_canonical();
            ip.is_loopback() || ip.is_unspecified()
        })?;
        self.table
            .ids()
            .into_iter()
            .find_map(|id| match &self.table.get(id)?.state {
                State::Listening(listener) if listener.guest_name.inet()?.port() == to.port() => {
                    listener.host_name.clone()
                }
                _ => None,
            })
    }

    fn get_name(&mut self, ticket: Ticket, key: Key, own: bool) -> Result<(), Errno> {
        let id = self.table.find_any(key);
        if !own && let Some(peer) = self.accepted_from(key, id) {
            self.replies.answer(ticket, Reply::Name(Ok(peer)));
            return Ok(());
        }
        let id = id.ok_or(Errno::EINVAL)?;
        let has_socket = match self.table.get(id).map(|proxy| (&proxy.state, proxy.origin.family())) {
            Some((_, None) | (State::Idle | State::Closed, _)) | None => false,
            Some((State::Datagram(datagram), _)) => datagram.open,
            Some(_) => true,
        };
        if !has_socket {
            return Err(Errno::ENOTCONN);
        }
        self.actions.push_back(Action::QueryName { id, own, ticket });
        Ok(())
    }

    /// Who an accepted connection came from, also if it has ended.
    fn accepted_from(&self, key: Key, id: Option<ProxyId>) -> Option<SocketName> {
        match id {
            Some(id) => self.table.get(id)?.peer.clone(),
            None => self
                .departed
                .iter()
                .find(|(of, _)| *of == key)
                .map(|(_, peer)| peer.clone()),
        }
    }

    fn sendto_addr(&mut self, svm_port: u32, to: Result<SocketName, NameError>) {
        let Some(id) = self.table.find(SocketKind::Datagram, tsi_key(svm_port)) else {
            return self.stats.datagrams_undeliverable.count();
        };
        let resolved = self
            .named_in_family(id, to)
            .and_then(usable_destination)
            .and_then(|to| Ok((to.clone(), self.resolve(Operation::Send, SocketKind::Datagram, to)?)));
        let Some(proxy) = self.table.get_mut(id) else { return };
        let (Some(family), State::Datagram(datagram)) = (proxy.origin.family(), &mut proxy.state) else {
            return;
        };
        match resolved {
            Err(_) => datagram.send_nowhere(),
            Ok((asked, to)) => {
                datagram.send_to(asked, to);
                if !datagram.open {
                    self.actions.push_back(Action::OpenDatagram { id, family });
                }
            }
        }
    }

    fn release(&mut self, now: Duration, key: Key) {
        for kind in [SocketKind::Stream, SocketKind::Datagram] {
            let Some(id) = self.table.find(kind, key) else { continue };
            if self.table.get(id).and_then(|proxy| proxy.origin.family()).is_some() {
                self.release_proxy(now, id);
            }
        }
        self.tombstones.retain(|(of, _)| *of != key);
        self.departed.retain(|(of, _)| *of != key);
    }

    fn release_proxy(&mut self, now: Duration, id: ProxyId) {
        let Some(proxy) = self.table.get_mut(id) else { return };
        // Nobody is left who could ask for it, and it would push out one that somebody does ask for.
        proxy.peer = None;
        match &mut proxy.state {
            State::Stream(stream) if stream.is_open() => {
                stream.release();
                self.linger(id, now);
                self.settle(id);
            }
            // The guest closes it after its RST.
            State::Closed => {}
            _ => self.drop_proxy(id, false),
        }
    }
}

pub(super) fn tsi_key(svm_port: u32) -> Key {
    Key {
        guest_port: svm_port,
        host_port: port::RENDEZVOUS,
    }
}

/// An AF_UNIX path must be absolute, since the guest's working directory is unknown here; abstract names of the host
/// are not for guests.
pub(super) fn usable_destination(name: SocketName) -> Result<SocketName, Errno> {
    match &name {
        SocketName::Unix(UnixName::Path(path)) if !path.starts_with(b"/") => Err(Errno::EINVAL),
        SocketName::Unix(UnixName::Unnamed) => Err(Errno::EINVAL),
        SocketName::Unix(UnixName::Abstract(_)) => Err(Errno::ECONNREFUSED),
        _ => Ok(name),
    }
}
