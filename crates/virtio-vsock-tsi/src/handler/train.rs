//! Packets of one stream that follow one another: the host gets them in one call, and is woken for them once.

use virtio_ring::Chain;
use vsock_proto::ProxyId;
use vsock_proto::wire::{Header, Op, PacketType};

/// Packets of one call. More would hardly save more, and keep their memory from the driver for longer.
const MOST: usize = 16;

/// A packet with payload.
pub(super) struct Packet {
    pub(super) chain: Chain,
    /// Bytes of payload.
    pub(super) len: usize,
}

/// What packets of one stream have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    cids: [u64; 2],
    ports: [u32; 2],
}

impl Flow {
    fn of(header: &Header) -> Self {
        Self {
            cids: [header.src_cid, header.dst_cid],
            ports: [header.src_port, header.dst_port],
        }
    }
}

/// The packets, and the chain that was taken last.
#[derive(Default)]
pub(super) struct Train {
    of: Option<(ProxyId, Flow)>,
    packets: Vec<Packet>,
    /// Taken from the ring, and a packet of the train once it is [added](Self::add).
    pub(super) last: Chain,
    /// To be filled again: a chain keeps room for the longest one seen.
    spare: Vec<Chain>,
}

impl Train {
    /// Whether a packet with this header is payload of the same stream, and there is room for it.
    pub(super) fn goes_on_with(&self, header: &Header) -> bool {
        let Some((_, flow)) = self.of else { return false };
        let payload = header.op == Op::Rw && header.kind == PacketType::Stream;
        payload && Flow::of(header) == flow && self.packets.len() < MOST
    }

    /// Adds the chain that was taken last, a packet with this header that has `len` bytes for the stream.
    pub(super) fn add(&mut self, header: &Header, stream: ProxyId, len: usize) {
        self.of = Some((stream, Flow::of(header)));
        let fresh = self.spare.pop().unwrap_or_default();
        let chain = std::mem::replace(&mut self.last, fresh);
        self.packets.push(Packet { chain, len });
    }

    /// Which stream the packets belong to, if there are any.
    #[inline]
    pub(super) fn stream(&self) -> Option<ProxyId> {
        self.of.map(|(stream, _)| stream)
    }

    /// The packets, in their order.
    pub(super) fn packets(&self) -> &[Packet] {
        &self.packets
    }

    pub(super) fn clear(&mut self) {
        self.of = None;
        while let Some(Packet { chain, .. }) = self.packets.pop() {
            self.spare.push(chain);
        }
    }
}

/// Bytes of payload in all of them.
pub(super) fn total(packets: &[Packet]) -> usize {
    packets.iter().map(|packet| packet.len).sum()
}

/// What is left of packets after their first `done` bytes: those that have some left, each with how much of it is done.
pub(super) fn left_of(packets: &[Packet], mut done: usize) -> impl Iterator<Item = (&Packet, usize)> {
    packets.iter().filter_map(move |packet| {
        let skipped = done.min(packet.len);
        done -= skipped;
        (skipped < packet.len).then_some((packet, skipped))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(lens: &[usize]) -> Vec<Packet> {
        let packet = |&len| Packet {
            chain: Chain::new(),
            len,
        };
        lens.iter().map(packet).collect()
    }

    #[test]
    fn left_of_starts_within_the_packet_that_is_done_in_part() {
        let packets = packets(&[3, 0, 4, 5]);
        assert_eq!(total(&packets), 12);
        let left = |done| -> Vec<(usize, usize)> {
            left_of(&packets, done)
                .map(|(packet, skipped)| (packet.len, skipped))
                .collect()
        };
        assert_eq!(left(0), [(3, 0), (4, 0), (5, 0)]);
        assert_eq!(left(2), [(3, 2), (4, 0), (5, 0)]);
        assert_eq!(left(3), [(4, 0), (5, 0)]);
        assert_eq!(left(11), [(5, 4)]);
        assert_eq!(left(12), []);
    }
}
