//! Packets to the guest: what to put into the next receive buffers (TSI specification, 9).

use super::proxy::State;
use super::{Muxer, Turn};
use crate::ids::{Cid, Key, ProxyId};
use crate::wire::{Family, Header, Op, PacketType, Reply, Shutdown, SocketName, port};

/// The most packets of one turn of a stream, and so the most receive buffers that one read of a host's socket fills.
pub const MAX_TURN_PACKETS: u32 = 64;

/// How much one turn of a stream may give the guest.
struct Quantum {
    bytes: u32,
    packets: u32,
}

/// While others wait. Linux's receive buffers of 3776 bytes have room for 3732 of payload: 64 KiB fill 18 of them.
const SHARED: Quantum = Quantum {
    bytes: 64 << 10,
    packets: 18,
};

/// While nobody else does: each read of the host's socket costs some thousand instructions, and often an ACK.
const ALONE: Quantum = Quantum {
    bytes: 256 << 10,
    packets: MAX_TURN_PACKETS,
};

/// Resets of connections that do not exist; older ones are forgotten.
const MAX_STRAYS: usize = 256;

/// Streams whose RST may not have been seen: as many as the guest can have sent packets for meanwhile in a usual ring.
pub(super) const MAX_FAREWELLS: usize = 256;

/// Something for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A packet that is complete.
    Packet {
        /// Its header.
        header: Header,
        /// Its payload.
        reply: Option<Reply>,
    },
    /// The host's clock; its payload is the number, little-endian.
    Time {
        /// The header.
        header: Header,
        /// Nanoseconds since 1970.
        unix_nanos: u64,
    },
    /// Read from the host socket of a stream, straight into receive buffers; ask [`Muxer::stream_header`] for the
    /// header of each, in order; then [`Muxer::stream_read`].
    Stream {
        /// Which.
        id: ProxyId,
        /// The most bytes to read.
        max_bytes: u32,
        /// The most buffers to use: [`MAX_TURN_PACKETS`], or fewer.
        max_packets: u32,
    },
    /// Read one datagram from the host socket, then [`Muxer::datagram_read`].
    Datagram {
        /// Which.
        id: ProxyId,
    },
}

/// How a turn of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRead {
    /// There may be more.
    More,
    /// There is no more for now.
    Empty,
    /// The host sends no more.
    Eof,
    /// The host socket is broken.
    Failed,
}

/// How the reading of a datagram ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatagramRead {
    /// One came.
    Got {
        /// Its length.
        len: u32,
        /// Its sender, if the socket tells.
        from: Option<SocketName>,
        /// Whether to be asked for another one at once; else when the socket is reported again
        /// ([`Muxer::readable`]).
        more: bool,
    },
    /// One came that is longer than the receive buffer, or cannot be taken otherwise.
    TooLong,
    /// There is none for now.
    Empty,
}

/// A RST for a connection that we do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StrayReset(Header);

impl StrayReset {
    /// With the addresses of `header` swapped.
    pub(crate) fn to(header: &Header) -> StrayReset {
        StrayReset(Header {
            src_cid: header.dst_cid,
            dst_cid: header.src_cid,
            src_port: header.dst_port,
            dst_port: header.src_port,
            len: 0,
            kind: header.kind,
            op: Op::Rst,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        })
    }
}

impl Muxer {
    pub(super) fn push_stray(&mut self, reset: StrayReset) {
        if self.strays.len() >= MAX_STRAYS {
            self.strays.pop_front();
            self.stats.resets_dropped.count();
        }
        self.strays.push_back(reset);
    }

    fn bid_farewell(&mut self, key: Key) {
        self.farewells.add(key);
    }

    /// A stream opens with this key: a RST that is left from before would meet it.
    pub(super) fn forget_resets(&mut self, key: Key) {
        self.strays
            .retain(|StrayReset(header)| (header.dst_port, header.src_port) != (key.guest_port, key.host_port));
        self.farewells.remove(key);
        self.unanswered.take(key);
    }

    /// Whether there may be something for the guest.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        self.replies.has_ready() || !self.strays.is_empty() || self.time_sync.is_some() || self.table.has_turns()
    }

    /// What to put into the next receive buffer. To be called only when there is one: what is returned is not kept.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some((ticket, reply)) = self.replies.next() {
            let mut header = self.header(ticket.control_port, ticket.reply_port, PacketType::Datagram, Op::Rw);
            header.len = u32::try_from(reply.wire_len()).unwrap_or(0);
            return Some(self.packet(header, Some(reply)));
        }
        if let Some(StrayReset(header)) = self.strays.pop_front() {
            self.stats.resets_sent.count();
            return Some(self.packet(header, None));
        }
        if let Some(unix_nanos) = self.time_sync.take() {
            let mut header = self.header(port::TIME_SYNC, port::TIME_SYNC, PacketType::Datagram, Op::Rw);
            header.len = 8;
            self.stats.packets_to_guest.count();
            return Some(Transmit::Time { header, unix_nanos });
        }
        while let Some(id) = self.table.dequeue(Turn::Urgent) {
            if let Some(header) = self.urgent_header(id) {
                return Some(self.packet(header, None));
            }
        }
        while let Some(id) = self.table.dequeue(Turn::Data) {
            if let Some(grant) = self.grant(id) {
                return Some(grant);
            }
        }
        None
    }

    fn packet(&self, header: Header, reply: Option<Reply>) -> Transmit {
        self.stats.packets_to_guest.count();
        Transmit::Packet { header, reply }
    }

    #[inline]
    fn header(&self, host_port: u32, guest_port: u32, kind: PacketType, op: Op) -> Header {
        Header {
            src_cid: Cid::HOST.wire(),
            dst_cid: self.config.guest_cid.wire(),
            src_port: host_port,
            dst_port: guest_port,
            len: 0,
            kind,
            op,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    fn urgent_header(&mut self, id: ProxyId) -> Option<Header> {
        let proxy = self.table.get_mut(id)?;
        let key @ Key { guest_port, host_port } = proxy.key;
        if matches!(proxy.state, State::Closed) {
            self.remove(id);
            self.bid_farewell(key);
            self.stats.resets_sent.count();
            return Some(self.header(host_port, guest_port, PacketType::Stream, Op::Rst));
        }
        let State::Stream(stream) = &mut proxy.state else {
            return None;
        };
        let (op, flags) = stream.take_pending()?;
        let (buf_alloc, fwd_cnt) = stream.report();
        if stream.has_pending() {
            self.table.enqueue(id, Turn::Urgent);
        }
        let header = self.header(host_port, guest_port, PacketType::Stream, op);
        Some(Header {
            flags: Shutdown::bits(&flags),
            buf_alloc,
            fwd_cnt,
            ..header
        })
    }

    fn grant(&self, id: ProxyId) -> Option<Transmit> {
        let proxy = self.table.get(id)?;
        match &proxy.state {
            State::Stream(stream) if proxy.readable && stream.wants_data() && !stream.credit.is_exhausted() => {
                let quantum = if self.table.has_turns() { SHARED } else { ALONE };
                Some(Transmit::Stream {
                    id,
                    max_bytes: stream.credit.bytes().min(quantum.bytes),
                    max_packets: stream.credit.packets().min(quantum.packets),
                })
            }
            State::Datagram(datagram) if proxy.readable && datagram.open => Some(Transmit::Datagram { id }),
            _ => None,
        }
    }

    /// The header of a packet with `len` bytes that were read for a [`Transmit::Stream`].
    #[inline]
    pub fn stream_header(&mut self, id: ProxyId, len: u32) -> Option<Header> {
        let proxy = self.table.get_mut(id)?;
        let Key { guest_port, host_port } = proxy.key;
        let State::Stream(stream) = &mut proxy.state else {
            return None;
        };
        stream.sent(len);
        let (buf_alloc, fwd_cnt) = stream.report();
        self.stats.packets_to_guest.count();
        self.stats.bytes_to_guest.add(len.into());
        let header = self.header(host_port, guest_port, PacketType::Stream, Op::Rw);
        Some(Header {
            len,
            buf_alloc,
            fwd_cnt,
            ..header
        })
    }

    /// The turn of a [`Transmit::Stream`] is over.
    pub fn stream_read(&mut self, id: ProxyId, end: StreamRead) {
        if let Some(proxy) = self.table.get_mut(id) {
            proxy.readable = end == StreamRead::More;
        }
        match (end, self.stream_mut(id)) {
            (StreamRead::Failed, Some(_)) => return self.reset_stream(id, false),
            (StreamRead::Eof, Some(stream)) => stream.host_eof(),
            _ => {}
        }
        self.settle(id);
    }

    /// The turn of a [`Transmit::Datagram`] is over. If there is a header, the datagram goes to the guest with it.
    pub fn datagram_read(&mut self, id: ProxyId, read: DatagramRead) -> Option<Header> {
        let proxy = self.table.get_mut(id)?;
        let State::Datagram(datagram) = &proxy.state else {
            return None;
        };
        proxy.readable = match &read {
            DatagramRead::Got { more, .. } => *more,
            DatagramRead::TooLong => true,
            DatagramRead::Empty => false,
        };
        // Nobody can tell by an AF_UNIX name who a datagram is from: it is what its sender bound, in a folder of its own.
        let unix = proxy.origin.family() == Some(Family::Unix);
        let known = match &read {
            DatagramRead::Got { from, .. } => unix || datagram.knows(from.as_ref()),
            _ => false,
        };
        let guest_port = proxy.key.guest_port;
        if proxy.readable {
            self.table.enqueue(id, Turn::Data);
        }
        match read {
            DatagramRead::Empty => None,
            DatagramRead::TooLong => {
                self.stats.datagrams_too_long.count();
                None
            }
            DatagramRead::Got { .. } if !known => {
                self.stats.datagrams_unsolicited.count();
                None
            }
            DatagramRead::Got { len, .. } => {
                self.stats.packets_to_guest.count();
                self.stats.datagrams_to_guest.count();
                Some(Header {
                    len,
                    ..self.header(guest_port, guest_port, PacketType::Datagram, Op::Rw)
                })
            }
        }
    }

    /// A header for a datagram of a plain route.
    pub fn route_datagram_header(&self, port: u32, guest_port: u32, len: u32) -> Header {
        self.stats.packets_to_guest.count();
        self.stats.datagrams_to_guest.count();
        Header {
            len,
            ..self.header(port, guest_port, PacketType::Datagram, Op::Rw)
        }
    }
}
