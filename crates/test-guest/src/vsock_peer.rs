//! The driver of a vsock device, with packets put together by hand (virtio 1.3, 5.10.6).

use std::collections::{HashMap, VecDeque};

use crate::{Buffer, Guest, SplitRing, Used};

const HEADER_LEN: usize = 44;
/// What Linux 6.12 posts: 44 bytes of header and 3732 of payload.
const LINUX_RX_LEN: usize = 3776;
/// The largest packet that a driver sends.
const MAX_PACKET_LEN: usize = HEADER_LEN + 65536;
const TX_SLOTS: usize = 40;

/// A packet, in plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VsockPacket {
    /// Bytes 0 to 8.
    pub src_cid: u64,
    /// Bytes 8 to 16.
    pub dst_cid: u64,
    /// Bytes 16 to 20.
    pub src_port: u32,
    /// Bytes 20 to 24.
    pub dst_port: u32,
    /// Bytes 28 to 30: 1 stream, 3 datagram.
    pub kind: u16,
    /// Bytes 30 to 32: 1 request, 2 response, 3 reset, 4 shutdown, 5 data, 6 credit update, 7 credit request.
    pub op: u16,
    /// Bytes 32 to 36.
    pub flags: u32,
    /// Bytes 36 to 40.
    pub buf_alloc: u32,
    /// Bytes 40 to 44.
    pub fwd_cnt: u32,
    /// What follows. Bytes 24 to 28 say how much.
    pub payload: Vec<u8>,
}

impl VsockPacket {
    /// The packet's bytes.
    ///
    /// # Panics
    /// When the payload is longer than 4 GiB.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.payload.len()).expect("a payload is shorter than 4 GiB");
        let mut bytes = Vec::new();
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        bytes.extend(self.src_port.to_le_bytes());
        bytes.extend(self.dst_port.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet in these bytes.
    ///
    /// # Panics
    /// When they are fewer than a header, or not as many as the header says.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> VsockPacket {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        assert_eq!(
            bytes.len(),
            HEADER_LEN + u32_at(24) as usize,
            "a used length is 44 and the payload"
        );
        VsockPacket {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
            payload: bytes[HEADER_LEN..].to_vec(),
        }
    }
}

/// The driver of a vsock device: three rings, receive buffers as Linux posts them, and what came in them.
#[derive(Debug)]
pub struct VsockPeer {
    guest: Guest,
    /// Receive ring.
    pub rx: SplitRing,
    /// Transmit ring.
    pub tx: SplitRing,
    /// Event ring.
    pub event: SplitRing,
    rx_buffers: HashMap<u32, Vec<Buffer>>,
    idle_rx: Vec<Vec<Buffer>>,
    event_buffers: HashMap<u32, Buffer>,
    tx_slots: Vec<u64>,
    tx_out: HashMap<u32, u64>,
    /// Used lengths of receive buffers that came back empty.
    pub rx_returned_empty: usize,
    /// Packets received and not looked at.
    pub inbox: VecDeque<VsockPacket>,
    /// Receive buffers are posted again when they come back.
    pub repost: bool,
}

impl VsockPeer {
    /// A driver with rings of 256 and no receive buffer posted yet.
    #[must_use]
    pub fn new() -> VsockPeer {
        VsockPeer::with_rings(|guest| guest.ring(256))
    }

    /// The same with VIRTIO_F_EVENT_IDX.
    #[must_use]
    pub fn with_event_idx() -> VsockPeer {
        VsockPeer::with_rings(|guest| guest.ring(256).with_event_idx())
    }

    fn with_rings(ring: impl Fn(&mut Guest) -> SplitRing) -> VsockPeer {
        let mut guest = Guest::new(8 << 20);
        let [rx, tx, event] = [(); 3].map(|()| ring(&mut guest));
        let tx_slots = (0..TX_SLOTS).map(|_| guest.alloc(MAX_PACKET_LEN, 16)).collect();
        VsockPeer {
            guest,
            rx,
            tx,
            event,
            rx_buffers: HashMap::new(),
            idle_rx: Vec::new(),
            event_buffers: HashMap::new(),
            tx_slots,
            tx_out: HashMap::new(),
            rx_returned_empty: 0,
            inbox: VecDeque::new(),
            repost: true,
        }
    }

    /// The memory and its allocator.
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Posts receive buffers as Linux does.
    pub fn post_rx(&mut self, count: usize) {
        for _ in 0..count {
            let buffer = self.guest.writable(LINUX_RX_LEN);
            self.post_rx_chain(vec![buffer]);
        }
    }

    /// Posts one receive buffer of any shape.
    ///
    /// # Panics
    /// When the ring is full.
    pub fn post_rx_chain(&mut self, buffers: Vec<Buffer>) {
        let head = self.rx.add(self.guest.mem(), &buffers).expect("room in the ring");
        self.rx_buffers.insert(head.into(), buffers);
    }

    /// Posts the buffers again that came back while `repost` was off.
    pub fn repost_rx(&mut self) {
        for buffers in std::mem::take(&mut self.idle_rx) {
            self.post_rx_chain(buffers);
        }
    }

    /// Posts one event buffer of `len` bytes.
    ///
    /// # Panics
    /// When the ring is full.
    pub fn post_event(&mut self, len: usize) {
        let buffer = self.guest.writable(len);
        let head = self.event.add(self.guest.mem(), &[buffer]).expect("room in the ring");
        self.event_buffers.insert(head.into(), buffer);
    }

    /// The event buffers that came back: their bytes, as many as the device wrote.
    pub fn events(&mut self) -> Vec<Vec<u8>> {
        let used = self.event.poll_all_used(self.guest.mem());
        used.into_iter()
            .map(|used| {
                let buffer = self.event_buffers.remove(&used.id);
                let bytes = buffer.map(|buffer| self.guest.bytes_of(buffer)).unwrap_or_default();
                bytes[..used.len as usize].to_vec()
            })
            .collect()
    }

    /// Whether [`send`](Self::send) has a place for a packet.
    pub fn can_send(&mut self) -> bool {
        self.reclaim_tx();
        !self.tx_slots.is_empty()
    }

    /// Sends a packet the way Linux does: the header in one buffer, the payload in buffers of 32 KiB.
    pub fn send(&mut self, packet: &VsockPacket) {
        let bytes = packet.to_bytes();
        let cuts: Vec<usize> = (HEADER_LEN..bytes.len()).step_by(32 << 10).collect();
        self.send_cut(&bytes, &cuts);
    }

    /// Sends bytes in buffers that are cut at each of `cuts` (ascending).
    ///
    /// # Panics
    /// When too much is sent that the device has not taken.
    pub fn send_cut(&mut self, bytes: &[u8], cuts: &[usize]) {
        self.reclaim_tx();
        let slot = self.tx_slots.pop().expect("the device takes packets");
        self.guest.write(slot, bytes);
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(bytes.len()));
        let buffers: Vec<Buffer> = starts
            .zip(ends)
            .map(|(start, end)| {
                let len = u32::try_from(end - start).expect("packets are short");
                Buffer::readable(slot + start as u64, len)
            })
            .collect();
        let head = self.tx.add(self.guest.mem(), &buffers).expect("room in the ring");
        self.tx_out.insert(head.into(), slot);
    }

    /// How many chains of the transmit ring the device has not given back.
    pub fn tx_in_flight(&mut self) -> usize {
        self.reclaim_tx();
        self.tx_out.len()
    }

    fn reclaim_tx(&mut self) {
        for Used { id, .. } in self.tx.poll_all_used(self.guest.mem()) {
            self.tx_slots.extend(self.tx_out.remove(&id));
        }
    }

    /// Looks for what the device put into receive buffers.
    pub fn poll(&mut self) {
        let used = self.rx.poll_all_used(self.guest.mem());
        for used in used {
            let buffers = self.rx_buffers.remove(&used.id).expect("a buffer that is out");
            if used.len == 0 {
                self.rx_returned_empty += 1;
                continue;
            }
            let mut bytes = self.guest.bytes_of_all(&buffers);
            bytes.truncate(used.len as usize);
            self.inbox.push_back(VsockPacket::from_bytes(&bytes));
            self.idle_rx.push(buffers);
        }
        if self.repost {
            self.repost_rx();
        }
    }
}

impl Default for VsockPeer {
    fn default() -> VsockPeer {
        VsockPeer::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_bytes_are_those_of_the_standard() {
        let packet = VsockPacket {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x0102_0304,
            dst_port: 620,
            kind: 1,
            op: 5,
            flags: 2,
            buf_alloc: 0x4_0000,
            fwd_cnt: 7,
            payload: b"hi".to_vec(),
        };
        let bytes = packet.to_bytes();
        let expected = [
            3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0x6c, 2, 0, 0, 2, 0, 0, 0, 1, 0, 5, 0, 2, 0, 0,
            0, 0, 0, 4, 0, 7, 0, 0, 0, b'h', b'i',
        ];
        assert_eq!(bytes, expected);
        assert_eq!(VsockPacket::from_bytes(&bytes), packet);
    }
}
