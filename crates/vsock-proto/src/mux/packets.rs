//! Packets from the guest (TSI specification, 16).

use std::time::Duration;

use super::control::tsi_key;
use super::proxy::{Origin, State, Waiter};
use super::{Action, Muxer, StrayReset};
use crate::ids::{Cid, Key, ProxyId};
use crate::stream::{Step, Stream};
use crate::wire::{Header, MAX_PAYLOAD_LEN, Op, PacketType, SocketKind, port};

/// What the caller is to do with a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing.
    Nothing,
    /// Give it to the host socket, keep what that does not take, and tell [`Muxer::flushed`] of all that it takes.
    Stream {
        /// Which.
        id: ProxyId,
        /// Payload bytes.
        len: u32,
    },
    /// Send it as one datagram: to [`Muxer::destination`] if `addressed`, else on the connected socket.
    Datagram {
        /// From which.
        id: ProxyId,
        /// Payload bytes.
        len: u32,
        /// The destination is the one that the guest named.
        addressed: bool,
    },
    /// Give it to what is configured for this port.
    RouteDatagram {
        /// The host's port.
        port: u32,
        /// The guest's port, for answers.
        guest_port: u32,
        /// Payload bytes.
        len: u32,
    },
}

impl Muxer {
    /// Whether the muxer itself reads this packet's payload: its first [`crate::wire::MAX_REQUEST_LEN`] bytes.
    pub fn wants_body(&self, header: &Header) -> bool {
        header.kind == PacketType::Datagram && self.is_control(header.dst_port)
    }

    fn is_control(&self, to_port: u32) -> bool {
        !self.config.tsi.is_empty() && port::is_control(to_port) && to_port != port::SENDTO_DATA
    }

    /// A packet came. `available` is how many payload bytes it really has, `body` the first of them if
    /// [`wants_body`](Self::wants_body).
    pub fn receive(&mut self, now: Duration, header: &Header, available: u32, body: &[u8]) -> Received {
        self.stats.packets_from_guest.count();
        if !self.is_addressed_well(header) {
            self.stats.dropped_address.count();
            return Received::Nothing;
        }
        let key = Key {
            guest_port: header.src_port,
            host_port: header.dst_port,
        };
        if header.len > MAX_PAYLOAD_LEN || header.len > available {
            self.stats.dropped_malformed.count();
            // The stream would be out of step.
            if header.kind == PacketType::Stream {
                self.violated(key);
            }
            return Received::Nothing;
        }
        match header.kind {
            PacketType::Stream => self.stream_packet(now, key, header),
            PacketType::Datagram => self.datagram_packet(now, key, header, body),
            PacketType::SeqPacket | PacketType::Other(_) => {
                self.stats.dropped_unknown.count();
                if header.op != Op::Rst {
                    self.stray_reset(header);
                }
                Received::Nothing
            }
        }
    }

    fn is_addressed_well(&mut self, header: &Header) -> bool {
        let possible = header.src_cid == self.config.guest_cid.wire() && !matches!(header.src_port, 0 | port::ANY);
        if possible && header.dst_cid != Cid::HOST.wire() {
            // Who asks for a machine that is not there is told at once.
            if header.kind == PacketType::Stream && header.op == Op::Request {
                self.stray_reset(header);
            }
            return false;
        }
        possible
    }

    fn stray_reset(&mut self, header: &Header) {
        let reset = StrayReset::to(header);
        self.push_stray(reset);
    }

    /// The guest broke the protocol of a stream: it is reset, except that a listener never is.
    fn violated(&mut self, key: Key) {
        self.stats.protocol_violations.count();
        if let Some(id) = self.table.find(SocketKind::Stream, key) {
            self.violated_by(id);
        }
    }

    fn violated_by(&mut self, id: ProxyId) {
        let state = self.table.get(id).map(|proxy| &proxy.state);
        if let Some(State::Connecting(_) | State::AwaitRequest | State::Stream(_)) = state {
            self.reset_stream(id, true);
        }
    }

    fn stream_packet(&mut self, now: Duration, key: Key, header: &Header) -> Received {
        if matches!(header.op, Op::Other(_)) {
            self.stats.dropped_unknown.count();
            return Received::Nothing;
        }
        if header.op == Op::Response {
            self.answered_late(key);
        }
        match self.table.find(SocketKind::Stream, key) {
            Some(id) => self.packet_for(now, id, header),
            None => self.packet_for_nobody(now, key, header),
        }
    }

    fn packet_for_nobody(&mut self, now: Duration, key: Key, header: &Header) -> Received {
        match header.op {
            Op::Rst => {}
            Op::Request if self.config.has_stream_route(key.host_port) => self.route_request(now, key, header),
            op if op != Op::Request && self.farewells.contains(key) => {}
            _ => self.stray_reset(header),
        }
        Received::Nothing
    }

    /// The guest opens a plain stream.
    fn route_request(&mut self, now: Duration, key: Key, header: &Header) {
        let waiter = Waiter::Request {
            buf_alloc: header.buf_alloc,
            fwd_cnt: header.fwd_cnt,
        };
        let proxy = Muxer::new_proxy(key, SocketKind::Stream, Origin::RouteOut, State::Connecting(waiter));
        let allowed = self.connects.take(now);
        let Some(id) = allowed.then(|| self.table.insert(proxy)).flatten() else {
            self.stats.over_limit.count();
            self.stats.connections_refused.count();
            return self.stray_reset(header);
        };
        self.forget_resets(key);
        self.actions.push_back(Action::ConnectRoute {
            id,
            port: key.host_port,
        });
    }

    fn packet_for(&mut self, now: Duration, id: ProxyId, header: &Header) -> Received {
        let Some(proxy) = self.table.get_mut(id) else {
            return Received::Nothing;
        };
        match (&mut proxy.state, header.op) {
            (State::Closed, Op::Request) => {
                let key = proxy.key;
                self.remove(id);
                self.packet_for_nobody(now, key, header)
            }
            (State::Idle | State::Listening(_) | State::Datagram(_), Op::Rst) => Received::Nothing,
            (_, Op::Rst) => {
                self.guest_reset(id);
                Received::Nothing
            }
            (State::Closed, _) => Received::Nothing,
            (State::Idle | State::Listening(_) | State::Datagram(_), _) => {
                self.stray_reset(header);
                Received::Nothing
            }
            (State::AwaitRequest, Op::Request) => {
                self.open_outbound(id, header.buf_alloc, header.fwd_cnt);
                Received::Nothing
            }
            (State::Stream(stream), Op::Request) if stream.is_closing() => {
                let key = proxy.key;
                self.guest_reset(id);
                self.packet_for_nobody(now, key, header)
            }
            (State::Connecting(_) | State::AwaitRequest, _) | (State::Stream(_), Op::Request) => {
                self.stats.protocol_violations.count();
                self.violated_by(id);
                Received::Nothing
            }
            (State::Stream(_), _) => self.open_packet(now, id, header),
        }
    }

    /// Linux resets a socket by itself when the answer to its close takes longer than 8 seconds.
    fn guest_reset(&mut self, id: ProxyId) {
        if self.orphan(id) {
            return;
        }
        let unflushed = match self.table.get(id).map(|proxy| &proxy.state) {
            Some(State::Stream(stream)) => !stream.is_open() || stream.window.unflushed() > 0,
            _ => false,
        };
        self.drop_proxy(id, unflushed);
    }

    /// Both sides are connected: the guest hears of it before anything else of this stream.
    pub(super) fn open_outbound(&mut self, id: ProxyId, buf_alloc: u32, fwd_cnt: u32) {
        let Some(window) = self.take_window() else {
            self.stats.connections_refused.count();
            return self.reset_stream(id, true);
        };
        let Ok(stream) = Stream::responding(window, buf_alloc, fwd_cnt) else {
            self.windows.give_back(window);
            self.stats.protocol_violations.count();
            return self.reset_stream(id, true);
        };
        if let Some(proxy) = self.table.get_mut(id) {
            proxy.state = State::Stream(Box::new(stream));
            let key = proxy.key;
            self.forget_resets(key);
        }
        self.stats.connections.count();
        self.table.set_deadline(id, None);
        self.actions.push_back(Action::Opened { id });
        self.settle(id);
    }

    fn open_packet(&mut self, now: Duration, id: ProxyId, header: &Header) -> Received {
        let Some(stream) = self.stream_mut(id) else {
            return Received::Nothing;
        };
        let closing = stream.is_closing();
        let step = stream.packet(header);
        let starts_closing = stream.is_closing() && !closing;
        match step {
            Step::Reset => {
                self.stats.protocol_violations.count();
                self.violated_by(id);
                return Received::Nothing;
            }
            Step::Opened => self.opened_inbound(id),
            Step::Data(len) => {
                self.stats.bytes_from_guest.add(len.into());
                self.settle(id);
                return Received::Stream { id, len };
            }
            Step::Nothing => {}
        }
        if starts_closing {
            self.linger(id, now);
        }
        self.settle(id);
        Received::Nothing
    }

    fn opened_inbound(&mut self, id: ProxyId) {
        self.table.set_deadline(id, None);
        self.stats.connections.count();
        self.actions.push_back(Action::Opened { id });
        if let Some(Origin::Accepted { listener, .. }) = self.table.get(id).map(|proxy| proxy.origin) {
            self.accept_settled(listener, Some(id));
        }
    }

    fn datagram_packet(&mut self, now: Duration, key: Key, header: &Header, body: &[u8]) -> Received {
        if header.op != Op::Rw {
            self.stats.dropped_unknown.count();
            return Received::Nothing;
        }
        if self.is_control(key.host_port) {
            self.control_request(now, key, body.get(..header.len as usize).unwrap_or(body));
            return Received::Nothing;
        }
        let addressed = !self.config.tsi.is_empty() && key.host_port == port::SENDTO_DATA;
        if (addressed || key.host_port == key.guest_port)
            && let Some(id) = self.table.find(SocketKind::Datagram, tsi_key(key.guest_port))
        {
            return self.datagram_of(id, header.len, addressed);
        }
        if !addressed && self.config.datagram_routes.contains(&key.host_port) {
            return Received::RouteDatagram {
                port: key.host_port,
                guest_port: key.guest_port,
                len: header.len,
            };
        }
        self.stats.datagrams_undeliverable.count();
        Received::Nothing
    }

    fn datagram_of(&mut self, id: ProxyId, len: u32, addressed: bool) -> Received {
        let ready = match self.table.get(id).map(|proxy| &proxy.state) {
            Some(State::Datagram(datagram)) if addressed => datagram.open && datagram.host_destination.is_some(),
            Some(State::Datagram(datagram)) => datagram.host_peer.is_some(),
            _ => false,
        };
        if !ready {
            self.stats.datagrams_undeliverable.count();
            return Received::Nothing;
        }
        Received::Datagram { id, len, addressed }
    }
}
