//! Taking over a saved state, which may be anybody's work: it is checked as a whole before anything of it is done.

use std::collections::{BTreeSet, VecDeque};

use super::control::{tsi_key, usable_destination};
use super::proxy::{Datagram, Listener, Origin, State};
use super::replies::Announced;
use super::unanswered::{most_named, most_unannounced};
use super::{Action, Muxer};
use crate::ids::ProxyId;
use crate::policy::Operation;
use crate::state::{DatagramState, ListenerState, MuxerState, ReplyState, RestoreError};
use crate::wire::{Family, Reply, SocketKind, SocketName, port};

/// What the state's sockets lead to on the host, in the order of the state.
struct Places {
    listeners: Vec<SocketName>,
    datagrams: Vec<Destinations>,
}

struct Destinations {
    connected: Option<SocketName>,
    addressed: Option<SocketName>,
}

impl Muxer {
    /// Takes over a state, then waits for its actions to be done: listeners listen again and datagram sockets are made
    /// again. The caller tells the guest that its streams are gone. Names are judged by the policy of now, and set-up
    /// and limits are those of now.
    ///
    /// # Errors
    /// What is wrong with the state; nothing of it is done then.
    pub fn restore(&mut self, state: &MuxerState) -> Result<(), RestoreError> {
        if !self.is_empty() {
            return Err(RestoreError::InUse(self.len()));
        }
        self.check_limits(state)?;
        check_ports(state)?;
        check_replies(state)?;
        let places = self.places(state)?;
        self.apply(state, places);
        Ok(())
    }

    fn check_limits(&self, state: &MuxerState) -> Result<(), RestoreError> {
        let limits = &self.config.limits;
        let accepts = state
            .listeners
            .iter()
            .filter(|listener| listener.accept_reply_port.is_some());
        let sockets = state.sockets.len() + state.listeners.len() + state.datagrams.len();
        let unannounced = state.listeners.iter().map(|listener| usize::from(listener.unannounced));
        for (what, count, limit) in [
            ("sockets", sockets, self.table.max()),
            ("listeners", state.listeners.len(), limits.listeners),
            // One of the answers may have found no buffer.
            (
                "requests",
                state.replies.len() + accepts.count(),
                limits.requests.saturating_add(1),
            ),
            ("names of peers", state.peers.len(), most_named(limits)),
            (
                "connections of one listener",
                unannounced.max().unwrap_or(0),
                most_unannounced(limits),
            ),
        ] {
            if count > limit {
                return Err(RestoreError::TooMany { what, count, limit });
            }
        }
        Ok(())
    }

    fn places(&mut self, state: &MuxerState) -> Result<Places, RestoreError> {
        for socket in &state.sockets {
            self.check_family(socket.port, socket.family)?;
        }
        let listeners = state.listeners.iter().map(|listener| self.listener_place(listener));
        let listeners = listeners.collect::<Result<_, _>>()?;
        let datagrams = state.datagrams.iter().map(|datagram| self.destinations(datagram));
        let datagrams = datagrams.collect::<Result<_, _>>()?;
        Ok(Places { listeners, datagrams })
    }

    fn check_family(&self, port: u32, family: Family) -> Result<(), RestoreError> {
        if self.carries(family) {
            Ok(())
        } else {
            Err(RestoreError::Family { port })
        }
    }

    fn listener_place(&mut self, listener: &ListenerState) -> Result<SocketName, RestoreError> {
        let port = listener.port;
        self.check_family(port, listener.family)?;
        check_name(port, &listener.name, listener.family)?;
        let host = self
            .published(&listener.name)
            .ok_or(RestoreError::NotPublished { port })?;
        self.resolve(Operation::Listen, SocketKind::Stream, host)
            .map_err(|_| RestoreError::Denied { port })
    }

    fn destinations(&mut self, datagram: &DatagramState) -> Result<Destinations, RestoreError> {
        self.check_family(datagram.port, datagram.family)?;
        Ok(Destinations {
            connected: self.destination_place(datagram, Operation::Connect, datagram.connected.as_ref())?,
            addressed: self.destination_place(datagram, Operation::Send, datagram.destination.as_ref())?,
        })
    }

    fn destination_place(
        &mut self,
        of: &DatagramState,
        operation: Operation,
        name: Option<&SocketName>,
    ) -> Result<Option<SocketName>, RestoreError> {
        let port = of.port;
        let Some(name) = name else { return Ok(None) };
        check_name(port, name, of.family)?;
        usable_destination(name.clone())
            .and_then(|name| self.resolve(operation, SocketKind::Datagram, name))
            .map(Some)
            .map_err(|_| RestoreError::Denied { port })
    }

    fn apply(&mut self, state: &MuxerState, places: Places) {
        self.table.set_next_host_port(state.next_host_port);
        for socket in &state.sockets {
            self.insert_tsi(socket.port, SocketKind::Stream, socket.family, State::Idle);
        }
        for (datagram, places) in state.datagrams.iter().zip(places.datagrams) {
            self.restore_datagram(datagram, places);
        }
        for (listener, at) in state.listeners.iter().zip(places.listeners) {
            self.restore_listener(listener, at);
        }
        for reply in &state.replies {
            self.restore_reply(reply);
        }
        for peer in &state.peers {
            // Its answer may be on its way.
            self.unanswered.add(peer.key(), ProxyId::NOBODY);
        }
        let peers = state.peers.iter();
        self.departed = peers.map(|peer| (peer.key(), peer.name.clone())).collect();
    }

    fn restore_reply(&mut self, saved: &ReplyState) {
        let ticket = self.replies.reserve(saved.reply_port, saved.control_port);
        match saved.accepted_at.and_then(|port| self.find_tsi(port)) {
            Some(listener) if saved.reply == Reply::Result(0) => {
                let inbound = ProxyId::NOBODY;
                self.replies.announce(ticket, Announced { listener, inbound });
            }
            _ => self.replies.answer(ticket, saved.reply.clone()),
        }
    }

    fn insert_tsi(&mut self, port: u32, kind: SocketKind, family: Family, state: State) -> Option<ProxyId> {
        self.table
            .insert(Muxer::new_proxy(tsi_key(port), kind, Origin::Tsi(family), state))
    }

    fn restore_datagram(&mut self, saved: &DatagramState, places: Destinations) {
        let mut datagram = Datagram::default();
        if let (Some(asked), Some(to)) = (saved.destination.clone(), places.addressed) {
            datagram.send_to(asked, to);
        }
        datagram.pending_peer.clone_from(&saved.connected);
        let wants_socket = datagram.host_destination.is_some();
        let state = State::Datagram(Box::new(datagram));
        let Some(id) = self.insert_tsi(saved.port, SocketKind::Datagram, saved.family, state) else {
            return;
        };
        if let Some(to) = places.connected {
            self.actions.push_back(Action::ConnectDatagram { id, to });
        } else if wants_socket {
            let family = saved.family;
            self.actions.push_back(Action::OpenDatagram { id, family });
        }
    }

    fn restore_listener(&mut self, saved: &ListenerState, at: SocketName) {
        let backlog = saved.backlog.max(1);
        let mut listener = Listener::new(saved.vm_port, self.accept_queue(backlog), saved.name.clone());
        let waiting = saved.accept_reply_port;
        listener.accept_ticket = waiting.map(|reply_port| self.replies.reserve(reply_port, port::ACCEPT));
        listener.unannounced = VecDeque::from(vec![ProxyId::NOBODY; usize::from(saved.unannounced)]);
        let state = State::Listening(listener);
        if let Some(id) = self.insert_tsi(saved.port, SocketKind::Stream, saved.family, state) {
            self.listeners += 1;
            self.actions.push_back(Action::Listen { id, at, backlog });
        }
    }
}

fn check_ports(state: &MuxerState) -> Result<(), RestoreError> {
    let sockets = state.sockets.iter().map(|socket| socket.port);
    let listeners = state.listeners.iter().map(|listener| listener.port);
    check_distinct("stream port", sockets.chain(listeners))?;
    check_distinct("datagram port", state.datagrams.iter().map(|datagram| datagram.port))?;
    for listener in &state.listeners {
        check_port("port of a listener", listener.vm_port)?;
    }
    for peer in &state.peers {
        check_port("port of an accepted connection", peer.guest_port)?;
        check_port("host port of an accepted connection", peer.host_port)?;
        check_name(peer.guest_port, &peer.name, peer.name.family())?;
    }
    Ok(())
}

fn check_distinct(what: &'static str, ports: impl Iterator<Item = u32>) -> Result<(), RestoreError> {
    let mut seen = BTreeSet::new();
    for port in ports {
        check_port(what, port)?;
        if !seen.insert(port) {
            return Err(RestoreError::Twice { what, port });
        }
    }
    Ok(())
}

fn check_port(what: &'static str, port: u32) -> Result<(), RestoreError> {
    match port {
        0 | port::ANY => Err(RestoreError::Port { what, port }),
        _ => Ok(()),
    }
}

fn check_replies(state: &MuxerState) -> Result<(), RestoreError> {
    let replies = state.replies.iter().map(|reply| reply.reply_port);
    let accepts = state.listeners.iter().filter_map(|listener| listener.accept_reply_port);
    check_distinct("waiting port", replies.chain(accepts))?;
    state.replies.iter().try_for_each(|of| {
        let fits = match (of.control_port, &of.reply) {
            (port::CONNECT | port::LISTEN | port::ACCEPT, Reply::Result(result)) => is_result(*result),
            (port::GETNAME, Reply::Name(Err(result))) => is_result(*result) && *result != 0,
            (port::GETNAME, Reply::Name(Ok(name))) => is_canonical(name),
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            Err(RestoreError::Reply {
                reply_port: of.reply_port,
                control_port: of.control_port,
            })
        }
    })
}

/// The guest hands any other number to its program as the result of a system call.
fn is_result(result: i32) -> bool {
    (-4095..=0).contains(&result)
}

fn check_name(port: u32, name: &SocketName, family: Family) -> Result<(), RestoreError> {
    if name.family() == family && is_canonical(name) {
        Ok(())
    } else {
        Err(RestoreError::Name { port })
    }
}

/// Whether a guest could have given it: a name that is too long for its structure panics the guest's kernel.
fn is_canonical(name: &SocketName) -> bool {
    name.canonical().as_ref() == Some(name)
}
