//! Listeners of the guest that the host has too, and who comes in by them (TSI specification, 5.8, 5.9 and 7.3).
//!
//! A connection that the host has accepted waits for the guest's RESPONSE, then in the guest's own queue for an ACCEPT to be
//! told of it. Both together are what the accept queue has room for.

use std::time::Duration;

use super::control::tsi_key;
use super::host::reply_code;
use super::proxy::{Listener, Origin, State};
use super::replies::Announced;
use super::unanswered::most_unannounced;
use super::{Action, Muxer, Reply, Ticket};
use crate::errno::Errno;
use crate::ids::{Key, ProxyId};
use crate::policy::Operation;
use crate::wire::{NameError, SocketKind, SocketName, UnixName, port};

/// The host's own bound on an accept queue: Linux's default `net.core.somaxconn` since 5.4.
const SOMAXCONN: u16 = 4096;

impl Muxer {
    pub(super) fn listener_mut(&mut self, id: ProxyId) -> Option<&mut Listener> {
        match &mut self.table.get_mut(id)?.state {
            State::Listening(listener) => Some(listener),
            _ => None,
        }
    }

    /// LISTEN.
    pub(super) fn listen(
        &mut self,
        ticket: Ticket,
        svm_port: u32,
        vm_port: u32,
        backlog: i32,
        at: Result<SocketName, NameError>,
    ) -> Result<(), Errno> {
        let id = self
            .find_tsi(svm_port)
            .ok_or_else(|| self.tombstone(tsi_key(svm_port), Errno::EPERM))?;
        let at = self.named_in_family(id, at)?;
        let backlog = u16::try_from(backlog.max(1)).unwrap_or(SOMAXCONN).min(SOMAXCONN);
        let limit = self.accept_queue(backlog);
        match &mut self.table.get_mut(id).ok_or(Errno::EINVAL)?.state {
            State::Idle => {}
            State::Datagram(_) => return Err(Errno::EOPNOTSUPP),
            State::Listening(listener) => {
                listener.backlog = limit;
                self.replies.answer(ticket, Reply::Result(0));
                self.maybe_resume_accept(id);
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        }
        let host = self.may_listen(vm_port, &at)?;
        let mut listener = Listener::new(vm_port, limit, at);
        listener.listen_ticket = Some(ticket);
        if let Some(proxy) = self.table.get_mut(id) {
            proxy.state = State::Listening(listener);
        }
        self.listeners += 1;
        self.actions.push_back(Action::Listen { id, at: host, backlog });
        Ok(())
    }

    /// The room in an accept queue of which a program says how long it is to be.
    pub(super) fn accept_queue(&self, backlog: u16) -> usize {
        usize::from(backlog).min(self.config.limits.backlog).max(1)
    }

    /// Where the host is to listen for a new listener of the guest.
    fn may_listen(&mut self, vm_port: u32, at: &SocketName) -> Result<SocketName, Errno> {
        if matches!(vm_port, 0 | port::ANY) {
            return Err(Errno::EINVAL);
        }
        let host = self.published(at).ok_or(Errno::EPERM)?;
        let host = self.resolve(Operation::Listen, SocketKind::Stream, host)?;
        if self.listeners >= self.config.limits.listeners {
            self.stats.over_limit.count();
            self.stats.listeners_refused.count();
            return Err(Errno::EMFILE);
        }
        Ok(host)
    }

    /// Where the host listens for a listener of the guest; `None` keeps it in the guest.
    pub(super) fn published(&self, at: &SocketName) -> Option<SocketName> {
        match at {
            SocketName::Inet(addr) => self
                .config
                .publish
                .ports
                .get(&addr.port())
                .copied()
                .map(SocketName::Inet),
            SocketName::Unix(UnixName::Path(path)) => self.config.publish.shows_unix(path).then(|| at.clone()),
            SocketName::Unix(_) => None,
        }
    }

    /// A host listen is over; it listens at this address.
    pub fn listening(&mut self, id: ProxyId, result: Result<SocketName, Errno>) {
        let Some(listener) = self.listener_mut(id) else { return };
        let ticket = listener.listen_ticket.take();
        let code = reply_code(&result);
        match result {
            Ok(name) => listener.host_name = Some(name),
            Err(_) => self.listen_failed(id),
        }
        if let Some(ticket) = ticket {
            self.replies.answer(ticket, Reply::Result(code));
        }
    }

    fn listen_failed(&mut self, id: ProxyId) {
        // Of a listener that was restored and could not be.
        let accept_ticket = self.listener_mut(id).and_then(|listener| listener.accept_ticket.take());
        if let Some(proxy) = self.table.get_mut(id) {
            proxy.state = State::Idle;
        }
        self.listeners = self.listeners.saturating_sub(1);
        self.stats.listeners_refused.count();
        if let Some(ticket) = accept_ticket {
            self.replies.refuse(ticket, Errno::ECONNABORTED);
        }
    }

    /// ACCEPT.
    pub(super) fn accept(&mut self, ticket: Ticket, svm_port: u32, nonblocking: bool) -> Result<(), Errno> {
        let id = self.find_tsi(svm_port).ok_or(Errno::EINVAL)?;
        let listener = self.listener_mut(id).ok_or(Errno::EINVAL)?;
        if let Some(inbound) = listener.unannounced.pop_front() {
            self.replies.announce(ticket, Announced { listener: id, inbound });
            self.maybe_resume_accept(id);
            return Ok(());
        }
        if nonblocking {
            return Err(Errno::EAGAIN);
        }
        if let Some(older) = listener.accept_ticket.replace(ticket) {
            self.replies.cancel(older);
        }
        Ok(())
    }

    /// Whether a listener takes another connection. If not, the caller waits for [`Action::ResumeAccept`].
    pub fn may_accept(&mut self, listener: ProxyId) -> bool {
        let full = self.table.is_full();
        let Some(listener) = self.listener_mut(listener) else {
            return false;
        };
        let may = listener.may_accept() && !full;
        listener.paused |= !may;
        self.listener_waits |= full;
        may
    }

    fn maybe_resume_accept(&mut self, id: ProxyId) {
        let Some(listener) = self.listener_mut(id) else { return };
        if listener.paused && listener.may_accept() {
            listener.paused = false;
            self.actions.push_back(Action::ResumeAccept { id });
        }
    }

    /// There is room in the table again.
    pub(super) fn resume_listeners(&mut self) {
        if std::mem::take(&mut self.listener_waits) {
            for id in self.table.ids() {
                self.maybe_resume_accept(id);
            }
        }
    }

    /// A host client was accepted; `peer` is its name, which the guest will ask for. `None`: it cannot be taken and is to
    /// be reset.
    pub fn accepted(&mut self, now: Duration, listener: ProxyId, peer: Option<SocketName>) -> Option<ProxyId> {
        let family = self.table.get(listener)?.origin.family()?;
        let guest_port = self.listener_mut(listener)?.vm_port;
        let id = self.request_guest(now, guest_port, Origin::Accepted { listener, family })?;
        if let Some(listener) = self.listener_mut(listener) {
            listener.awaiting += 1;
        }
        if let Some(proxy) = self.table.get_mut(id) {
            let name = peer.and_then(|name| name.in_family(family).canonical());
            proxy.peer = name.filter(|name| name.family() == family);
        }
        Some(id)
    }

    /// One connection less waits for its RESPONSE; `complete` is the one that got it.
    pub(super) fn accept_settled(&mut self, id: ProxyId, complete: Option<ProxyId>) {
        let Some(listener) = self.listener_mut(id) else { return };
        listener.awaiting = listener.awaiting.saturating_sub(1);
        listener.unannounced.extend(complete);
        self.answer_accept(id);
        self.maybe_resume_accept(id);
    }

    /// Tells who waits at a listener of a connection in the guest's queue, if there is one.
    fn answer_accept(&mut self, id: ProxyId) {
        let waiting = self
            .listener_mut(id)
            .filter(|listener| !listener.unannounced.is_empty())
            .and_then(|listener| listener.accept_ticket.take());
        if let Some(ticket) = waiting
            && self.replies.is_open(ticket)
            && let Some(inbound) = self
                .listener_mut(id)
                .and_then(|listener| listener.unannounced.pop_front())
        {
            self.replies.announce(ticket, Announced { listener: id, inbound });
        }
    }

    /// A caller asks again: what its answer was to tell of is still in the guest's queue.
    pub(super) fn withdraw(&mut self, reply_port: u32) {
        if let Some(Announced { listener: id, inbound }) = self.replies.withdraw(reply_port)
            && let Some(listener) = self.listener_mut(id)
        {
            listener.unannounced.push_front(inbound);
            self.answer_accept(id);
        }
    }

    /// The guest answers a connection that has ended meanwhile, and has put it into its queue all the same.
    pub(super) fn answered_late(&mut self, key: Key) {
        let Some(listener) = self.unanswered.take(key) else {
            return;
        };
        let hears = |id: &ProxyId| {
            let state = self.table.get(*id).map(|proxy| &proxy.state);
            matches!(state, Some(State::Listening(at)) if at.vm_port == key.guest_port)
        };
        let mut all = self.table.ids().into_iter().filter(hears);
        let id = match listener {
            ProxyId::NOBODY => all.next().filter(|_| all.next().is_none()),
            known => all.find(|&id| id == known),
        };
        let most = most_unannounced(&self.config.limits);
        if let Some(id) = id
            && let Some(listener) = self.listener_mut(id)
            && listener.unannounced.len() < most
        {
            listener.unannounced.push_back(ProxyId::NOBODY);
            self.answer_accept(id);
        }
    }

    /// Who waits at a listener that ends is told so, and who came in is not let in any more.
    pub(super) fn end_listening(&mut self, id: ProxyId) {
        let Some(listener) = self.listener_mut(id) else { return };
        let accept_ticket = listener.accept_ticket.take();
        let unannounced = std::mem::take(&mut listener.unannounced);
        if let Some(ticket) = accept_ticket {
            self.replies.refuse(ticket, Errno::ECONNABORTED);
        }
        let waiting = self.table.ids().into_iter().filter(|&of| self.waits_for(of, id));
        for inbound in waiting.chain(unannounced).collect::<Vec<_>>() {
            self.reset_stream(inbound, true);
        }
    }

    fn waits_for(&self, id: ProxyId, at: ProxyId) -> bool {
        self.table
            .get(id)
            .is_some_and(|proxy| match (&proxy.state, proxy.origin) {
                (State::Stream(stream), Origin::Accepted { listener, .. }) => listener == at && !stream.is_open(),
                _ => false,
            })
    }
}
