//! One transmit chain, read by us and by the `virtio-vsock` crate: where both take it, they read the same packet.
//!
//! Byte 0: in its low bit, whether header and payload share one descriptor. The rest is the packet. The other parser
//! takes no more than two descriptors, so there are none of the shapes that only ours takes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use test_guest::{Guest, SplitRing};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use virtio_ring::{Chain, Nearby, Ring};
use virtio_vsock::packet::VsockPacket;
use vm_memory::{Bytes, GuestAddress};
use vsock_proto::wire::{HEADER_LEN, Header, MAX_PAYLOAD_LEN};

fuzz_target!(|input: &[u8]| {
    let Some((&shape, packet)) = input.split_first() else {
        return;
    };
    let mut guest = Guest::new(0x20000);
    let mut driver = guest.ring(4);
    let cuts: &[usize] = if shape & 1 == 0 && packet.len() > HEADER_LEN {
        &[HEADER_LEN]
    } else {
        &[]
    };
    let buffers = guest.readable_pieces(packet, cuts);
    if packet.is_empty() || driver.add(guest.mem(), &buffers).is_none() {
        return;
    }
    if let (Some(ours), Some(theirs)) = (read_ours(&guest, &driver), read_theirs(&guest, &driver)) {
        assert_eq!(ours, theirs);
    }
});

type Read = ([u8; HEADER_LEN], Vec<u8>);

fn queue(driver: &SplitRing) -> Queue {
    let mut queue = Queue::new(driver.size()).expect("a power of two");
    queue
        .try_set_desc_table_address(GuestAddress(driver.desc_table()))
        .expect("aligned");
    queue
        .try_set_avail_ring_address(GuestAddress(driver.avail_ring()))
        .expect("aligned");
    queue
        .try_set_used_ring_address(GuestAddress(driver.used_ring()))
        .expect("aligned");
    queue.set_ready(true);
    queue
}

fn read_ours(guest: &Guest, driver: &SplitRing) -> Option<Read> {
    let mut chain = Chain::new();
    assert!(
        Ring::new(queue(driver))
            .pop(&Nearby::new(guest.mem()), &mut chain)
            .expect("a sound ring")
    );
    let mut bytes = [0; HEADER_LEN];
    chain.read_at(guest.mem(), 0, &mut bytes).ok()?;
    let header = Header::parse(&bytes);
    let fits = header.len <= MAX_PAYLOAD_LEN && header.len as usize <= chain.readable_len() - HEADER_LEN;
    let mut payload = vec![0; if fits { header.len as usize } else { return None }];
    chain
        .read_at(guest.mem(), HEADER_LEN, &mut payload)
        .expect("as long as that");
    Some((header.emit(), payload))
}

fn read_theirs(guest: &Guest, driver: &SplitRing) -> Option<Read> {
    let mut queue = queue(driver);
    let mut chain = queue.iter(guest.mem()).ok()?.next()?;
    let packet = VsockPacket::from_tx_virtq_chain(guest.mem(), &mut chain, MAX_PAYLOAD_LEN).ok()?;
    let header = Header {
        src_cid: packet.src_cid(),
        dst_cid: packet.dst_cid(),
        src_port: packet.src_port(),
        dst_port: packet.dst_port(),
        len: packet.len(),
        kind: packet.type_().into(),
        op: packet.op().into(),
        flags: packet.flags(),
        buf_alloc: packet.buf_alloc(),
        fwd_cnt: packet.fwd_cnt(),
    };
    let mut payload = vec![0; packet.len() as usize];
    if let Some(data) = packet.data_slice() {
        let len = payload.len().min(data.len());
        data.read_slice(&mut payload[..len], 0).expect("inside the slice");
    }
    Some((header.emit(), payload))
}
