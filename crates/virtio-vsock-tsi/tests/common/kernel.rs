//! The vsock half of Linux 6.12, as far as a device can tell.

use std::collections::VecDeque;

use test_guest::VsockPacket;

use super::Vm;

/// Linux's default receive buffer.
pub const BUF_ALLOC: u32 = 262_144;
/// Linux tells of its progress when its window, as we see it, is smaller.
const LOW_WINDOW: u32 = 65536;
/// What Linux charges a packet with.
const PACKET_CHARGE: usize = 576;

/// A stream socket of the guest's kernel.
pub struct GuestStream {
    pub port: u32,
    pub host_port: u32,
    open: bool,
    reset: bool,
    peer_shutdown: u32,
    pub buf_alloc: u32,
    rx_cnt: u32,
    fwd_cnt: u32,
    told_fwd_cnt: u32,
    tx_cnt: u32,
    pub peer_buf_alloc: u32,
    pub peer_fwd_cnt: u32,
    /// Packets that were not read, each with what of it was not.
    queue: VecDeque<Vec<u8>>,
    pub packets: Vec<(u16, usize)>,
}

impl GuestStream {
    /// What the event loop is told for the first stream of a fresh device.
    pub const FIRST_TOKEN: u32 = 0;

    pub fn connecting(port: u32, host_port: u32) -> GuestStream {
        GuestStream {
            port,
            host_port,
            open: false,
            reset: false,
            peer_shutdown: 0,
            buf_alloc: BUF_ALLOC,
            rx_cnt: 0,
            fwd_cnt: 0,
            told_fwd_cnt: 0,
            tx_cnt: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
            queue: VecDeque::new(),
            packets: Vec::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.open && !self.reset
    }

    pub fn is_reset(&self) -> bool {
        self.reset
    }

    /// The host sends no more, and all that it sent was read.
    pub fn peer_finished(&self) -> bool {
        self.queue.is_empty() && (self.reset || self.peer_shutdown & 2 != 0)
    }

    pub fn peer_shutdown(&self) -> u32 {
        self.peer_shutdown
    }

    pub fn unread(&self) -> usize {
        self.queue.iter().map(Vec::len).sum()
    }

    /// Linux never has more in flight than its own buffer is large.
    pub fn room(&self) -> usize {
        let window = self.peer_buf_alloc.min(self.buf_alloc);
        window.saturating_sub(self.tx_cnt.wrapping_sub(self.peer_fwd_cnt)) as usize
    }

    pub fn packet(&self, op: u16) -> VsockPacket {
        VsockPacket {
            src_cid: 3,
            dst_cid: 2,
            src_port: self.port,
            dst_port: self.host_port,
            kind: 1,
            op,
            flags: 0,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
            payload: Vec::new(),
        }
    }

    pub fn data_packet(&mut self, data: &[u8]) -> VsockPacket {
        self.tx_cnt = self.tx_cnt.wrapping_add(u32::try_from(data.len()).unwrap());
        self.told_fwd_cnt = self.fwd_cnt;
        VsockPacket {
            payload: data.to_vec(),
            ..self.packet(5)
        }
    }

    /// What the program reads, and the credit update that Linux sends for it.
    pub fn read(&mut self, max: usize) -> (Vec<u8>, Option<VsockPacket>) {
        let mut bytes = Vec::new();
        while bytes.len() < max
            && let Some(front) = self.queue.front_mut()
        {
            let take = front.len().min(max - bytes.len());
            bytes.extend(front.drain(..take));
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
        self.fwd_cnt = self.fwd_cnt.wrapping_add(u32::try_from(bytes.len()).unwrap());
        let seen = self
            .buf_alloc
            .saturating_sub(self.rx_cnt.wrapping_sub(self.told_fwd_cnt));
        let update = !bytes.is_empty() && self.open && !self.reset && (seen < LOW_WINDOW || self.queue.is_empty());
        (bytes, update.then(|| self.credit_update()))
    }

    fn credit_update(&mut self) -> VsockPacket {
        self.told_fwd_cnt = self.fwd_cnt;
        self.packet(6)
    }

    /// A packet of the device's. The answer to it, if there is one.
    fn receive(&mut self, packet: &VsockPacket) -> Option<VsockPacket> {
        self.packets.push((packet.op, packet.payload.len()));
        assert!(!self.reset, "a packet after RST: {packet:?}");
        if packet.op != 3 {
            self.peer_buf_alloc = packet.buf_alloc;
            self.peer_fwd_cnt = packet.fwd_cnt;
            assert!(self.open || packet.op == 2, "a packet before RESPONSE: {packet:?}");
        }
        match packet.op {
            2 => {
                assert!(!self.open, "a second RESPONSE");
                self.open = true;
            }
            3 => self.reset = true,
            4 => self.peer_shutdown |= packet.flags,
            5 => self.enqueue(&packet.payload),
            6 => {}
            7 => return Some(self.credit_update()),
            op => panic!("operation {op} for a connected socket"),
        }
        None
    }

    /// Linux resets the connection when either bound is passed; here the test fails.
    fn enqueue(&mut self, payload: &[u8]) {
        assert!(!payload.is_empty(), "a data packet without data");
        assert!(
            (self.queue.len() + 1) * PACKET_CHARGE <= self.buf_alloc as usize,
            "too many packets: ENOBUFS"
        );
        self.rx_cnt = self.rx_cnt.wrapping_add(u32::try_from(payload.len()).unwrap());
        assert!(
            self.rx_cnt.wrapping_sub(self.fwd_cnt) <= self.buf_alloc,
            "beyond the window: ENOBUFS"
        );
        self.queue.push_back(payload.to_vec());
    }
}

impl Vm {
    pub(super) fn kernel_turn(&mut self) {
        self.peer.poll();
        while let Some(packet) = self.peer.inbox.pop_front() {
            assert_eq!((packet.src_cid, packet.dst_cid), (2, 3), "{packet:?}");
            if packet.kind == 3 {
                assert_eq!(
                    (packet.op, packet.flags, packet.buf_alloc, packet.fwd_cnt),
                    (5, 0, 0, 0)
                );
                self.datagrams.push(packet);
                continue;
            }
            let key = (packet.dst_port, packet.src_port);
            if packet.op == 1 && self.listening.contains(&packet.dst_port) {
                self.accept(&packet);
            } else if let Some(stream) = self.streams.get_mut(&key) {
                if let Some(answer) = stream.receive(&packet) {
                    self.send(&answer);
                }
            } else {
                self.strays.push(packet);
            }
        }
    }

    /// The guest's kernel accepts a connection by itself; the program takes it later.
    fn accept(&mut self, request: &VsockPacket) {
        let mut stream = GuestStream::connecting(request.dst_port, request.src_port);
        stream.open = true;
        stream.peer_buf_alloc = request.buf_alloc;
        stream.peer_fwd_cnt = request.fwd_cnt;
        let response = stream.packet(2);
        self.streams.insert((stream.port, stream.host_port), stream);
        self.send(&response);
    }
}
