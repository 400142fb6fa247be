//! What the muxer keeps of each proxy.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::ids::{Key, ProxyId};
use crate::mux::replies::Ticket;
use crate::stream::Stream;
use crate::wire::{Family, SocketKind, SocketName};

/// Datagram peers that are remembered for one socket.
const MAX_PEERS: usize = 64;

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) key: Key,
    pub(crate) kind: SocketKind,
    pub(crate) origin: Origin,
    pub(crate) state: State,
    /// Of an accepted connection: who it came from.
    pub(crate) peer: Option<SocketName>,
    /// The host socket has something to read, by the last report.
    pub(crate) readable: bool,
    pub(crate) deadline: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// PROXY_CREATE.
    Tsi(Family),
    /// A host client, by way of a listening TSI socket.
    Accepted { listener: ProxyId, family: Family },
    /// The guest, by a plain REQUEST.
    RouteOut,
    /// A host client, by a plain route.
    RouteIn,
}

impl Origin {
    pub(crate) fn family(self) -> Option<Family> {
        match self {
            Origin::Tsi(family) | Origin::Accepted { family, .. } => Some(family),
            Origin::RouteOut | Origin::RouteIn => None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum State {
    /// Created, nothing asked yet; no host socket.
    Idle,
    /// The host connects.
    Connecting(Waiter),
    /// The host has connected, the guest's REQUEST must follow.
    AwaitRequest,
    Listening(Listener),
    Stream(Box<Stream>),
    Datagram(Box<Datagram>),
    /// Over. The host socket is closed, the guest will get a RST.
    Closed,
}

impl State {
    /// Whether what the host socket has to read is of use, now or soon.
    pub(crate) fn can_use_input(&self) -> bool {
        match self {
            State::Stream(stream) => stream.wants_data(),
            State::AwaitRequest => true,
            State::Datagram(datagram) => datagram.open,
            _ => false,
        }
    }
}

/// Who waits for a host connect.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    /// A CONNECT.
    Control(Ticket),
    /// A plain REQUEST with this credit.
    Request { buf_alloc: u32, fwd_cnt: u32 },
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) vm_port: u32,
    pub(crate) backlog: usize,
    /// What the program bound.
    pub(crate) guest_name: SocketName,
    /// Where the host listens, when it does.
    pub(crate) host_name: Option<SocketName>,
    /// LISTEN to be answered.
    pub(crate) listen_ticket: Option<Ticket>,
    /// ACCEPT to be answered.
    pub(crate) accept_ticket: Option<Ticket>,
    /// Connections whose RESPONSE has not come.
    pub(crate) awaiting: usize,
    /// Connections that are complete and not announced. They stay here when they end: they are in the guest's queue.
    pub(crate) unannounced: VecDeque<ProxyId>,
    /// The host was told to wait with accepting.
    pub(crate) paused: bool,
}

impl Listener {
    pub(crate) fn new(vm_port: u32, backlog: usize, guest_name: SocketName) -> Listener {
        Listener {
            vm_port,
            backlog,
            guest_name,
            host_name: None,
            listen_ticket: None,
            accept_ticket: None,
            awaiting: 0,
            unannounced: VecDeque::new(),
            paused: false,
        }
    }

    pub(crate) fn may_accept(&self) -> bool {
        self.host_name.is_some() && self.awaiting + self.unannounced.len() < self.backlog
    }
}

#[derive(Debug, Default)]
pub(crate) struct Datagram {
    /// There is a host socket.
    pub(crate) open: bool,
    /// CONNECT to be answered.
    pub(crate) connect_ticket: Option<Ticket>,
    /// What the last CONNECT named, until the host has decided.
    pub(crate) pending_peer: Option<SocketName>,
    /// Whom the socket is connected to, as the guest said it.
    pub(crate) guest_peer: Option<SocketName>,
    /// Whom the host's socket is connected to, as its kernel says. What came before is still in the socket.
    pub(crate) host_peer: Option<SocketName>,
    /// Where the next datagram goes, as the guest said it.
    pub(crate) guest_destination: Option<SocketName>,
    /// Where the host sends the next datagram: the same after the policy.
    pub(crate) host_destination: Option<SocketName>,
    /// Whom the guest wrote to, latest last.
    peers: VecDeque<SocketName>,
}

impl Datagram {
    pub(crate) fn send_to(&mut self, asked: SocketName, to: SocketName) {
        self.guest_destination = Some(asked);
        let peer = who_answers(&to);
        self.peers.retain(|known| *known != peer);
        if self.peers.len() >= MAX_PEERS {
            self.peers.pop_front();
        }
        self.peers.push_back(peer);
        self.host_destination = Some(to);
    }

    /// The host socket is gone, and with it what it was connected to.
    pub(crate) fn closed(&mut self) {
        self.open = false;
        (self.guest_peer, self.host_peer) = (None, None);
    }

    /// What follows must not go where the one before went.
    pub(crate) fn send_nowhere(&mut self) {
        (self.guest_destination, self.host_destination) = (None, None);
    }

    pub(crate) fn knows(&self, from: Option<&SocketName>) -> bool {
        from.is_some_and(|name| self.host_peer.as_ref() == Some(name) || self.peers.contains(name))
    }
}

/// Linux takes the unspecified address of a destination for its loopback.
fn who_answers(to: &SocketName) -> SocketName {
    match to {
        SocketName::Inet(addr) if addr.ip().to_canonical().is_unspecified() => {
            let loopback = match addr.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
            };
            SocketName::Inet(SocketAddr::new(loopback, addr.port()))
        }
        other => other.clone(),
    }
}
