//! Instructions of vsock: chains and headers beside the `virtio-vsock` crate, packets through the handler, and the muxer
//! with many connections. They repeat exactly.
#![allow(
    missing_docs,
    clippy::exit,
    reason = "gungraun's macros make public functions and a main that exits"
)]

use std::hint::black_box;

use benches::vsock::{Crowd, LINUX_RX_LEN, Rig, packet, queue};
use gungraun::{library_benchmark, library_benchmark_group, main};
use test_guest::{Guest, SplitRing};
use virtio_queue::{Queue, QueueOwnedT};
use virtio_ring::{Chain, Nearby, Ring};
use virtio_vsock::packet::VsockPacket;
use virtio_vsock_tsi::vsock_proto::wire::{HEADER_LEN, Header, MAX_PAYLOAD_LEN, Op, PacketType};

/// Chains in the ring.
const CHAINS: usize = 64;

/// A ring with chains of a header and 4096 bytes, as the guest sends them.
fn sent() -> (Guest, SplitRing) {
    filled(|guest| guest.readable_pieces(&packet(5, vec![7; 4096]).to_bytes(), &[HEADER_LEN]))
}

/// A ring with buffers as Linux posts them.
fn posted() -> (Guest, SplitRing) {
    filled(|guest| vec![guest.writable(LINUX_RX_LEN)])
}

fn filled(mut chain: impl FnMut(&mut Guest) -> Vec<test_guest::Buffer>) -> (Guest, SplitRing) {
    let mut guest = Guest::new(1 << 20);
    let mut driver = guest.ring(256);
    for _ in 0..CHAINS {
        let buffers = chain(&mut guest);
        driver.add(guest.mem(), &buffers).expect("room in the ring");
    }
    (guest, driver)
}

fn ours((guest, driver): (Guest, SplitRing)) -> (Guest, Ring, Chain) {
    (guest, Ring::new(queue(&driver)), Chain::new())
}

fn theirs((guest, driver): (Guest, SplitRing)) -> (Guest, Queue) {
    (guest, queue(&driver))
}

fn header() -> Header {
    Header {
        src_cid: 2,
        dst_cid: 3,
        src_port: 7,
        dst_port: 5000,
        len: 3000,
        kind: PacketType::Stream,
        op: Op::Rw,
        flags: 0,
        buf_alloc: 262_144,
        fwd_cnt: 9,
    }
}

#[library_benchmark]
#[bench::of_64(ours(sent()))]
fn tx_chain_ours((guest, mut ring, mut chain): (Guest, Ring, Chain)) -> Guest {
    let mem = &Nearby::new(guest.mem());
    let mut taken = 0;
    while ring.pop(mem, &mut chain).expect("a sound ring") {
        let mut bytes = [0; HEADER_LEN];
        chain.read_at(mem, 0, &mut bytes).expect("a header");
        let header = black_box(Header::parse(&bytes));
        for slice in chain.readable_slices(mem, HEADER_LEN, header.len as usize) {
            black_box(slice.expect("in memory").len());
        }
        taken += 1;
    }
    assert_eq!(taken, CHAINS);
    guest
}

#[library_benchmark]
#[bench::of_64(theirs(sent()))]
fn tx_chain_virtio_vsock((guest, mut queue): (Guest, Queue)) -> Guest {
    let mut taken = 0;
    for mut chain in queue.iter(guest.mem()).expect("a sound ring") {
        let packet = VsockPacket::from_tx_virtq_chain(guest.mem(), &mut chain, MAX_PAYLOAD_LEN).expect("a packet");
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
        black_box(header);
        black_box(packet.data_slice().expect("payload").len());
        taken += 1;
    }
    assert_eq!(taken, CHAINS);
    guest
}

#[library_benchmark]
#[bench::of_64(ours(posted()))]
fn rx_chain_ours((guest, mut ring, mut chain): (Guest, Ring, Chain)) -> Guest {
    let mem = &Nearby::new(guest.mem());
    let mut taken = 0;
    while ring.pop(mem, &mut chain).expect("a sound ring") {
        let room = chain.writable_len() - HEADER_LEN;
        for slice in chain.writable_slices(mem, HEADER_LEN, room) {
            black_box(slice.expect("in memory").len());
        }
        let written = chain.write_at(mem, 0, &black_box(header()).emit());
        written.expect("room for a header");
        taken += 1;
    }
    assert_eq!(taken, CHAINS);
    guest
}

#[library_benchmark]
#[bench::of_64(theirs(posted()))]
fn rx_chain_virtio_vsock((guest, mut queue): (Guest, Queue)) -> Guest {
    let mut taken = 0;
    for mut chain in queue.iter(guest.mem()).expect("a sound ring") {
        let mut packet =
            VsockPacket::from_rx_virtq_chain(guest.mem(), &mut chain, MAX_PAYLOAD_LEN).expect("a receive buffer");
        black_box(packet.data_slice().expect("room").len());
        let header = black_box(header());
        packet
            .set_src_cid(header.src_cid)
            .set_dst_cid(header.dst_cid)
            .set_src_port(header.src_port)
            .set_dst_port(header.dst_port)
            .set_len(header.len)
            .set_type(header.kind.into())
            .set_op(header.op.into())
            .set_flags(header.flags)
            .set_buf_alloc(header.buf_alloc)
            .set_fwd_cnt(header.fwd_cnt);
        taken += 1;
    }
    assert_eq!(taken, CHAINS);
    guest
}

#[library_benchmark]
#[bench::nothing(Rig::with_sent(0, 0))]
#[bench::one_packet_of_1_byte(Rig::with_sent(1, 1))]
#[bench::eight_packets_of_1_byte(Rig::with_sent(8, 1))]
#[bench::one_packet_of_64_kib(Rig::with_sent(1, 64 << 10))]
fn handler_tx(mut rig: Box<Rig>) -> Box<Rig> {
    rig.serve();
    rig
}

#[library_benchmark]
#[bench::one_packet_of_1_byte(Rig::with_waiting(1, 1))]
#[bench::eight_packets_of_1_byte(Rig::with_waiting(8, 1))]
#[bench::eighteen_packets_of_64_kib(Rig::with_waiting(64 << 10, 64 << 10))]
fn handler_rx(mut rig: Box<Rig>) -> Box<Rig> {
    rig.serve();
    rig
}

#[library_benchmark]
#[bench::of_1(Crowd::new(1))]
#[bench::of_100(Crowd::new(100))]
#[bench::of_10000(Crowd::new(10_000))]
fn muxer_poll_idle(mut crowd: Box<Crowd>) -> (bool, Box<Crowd>) {
    (crowd.poll_idle(), crowd)
}

#[library_benchmark]
#[bench::of_1(Crowd::new(1))]
#[bench::of_100(Crowd::new(100))]
#[bench::of_10000(Crowd::new(10_000))]
fn muxer_poll_one_ready(mut crowd: Box<Crowd>) -> Box<Crowd> {
    black_box(crowd.poll_ready()).expect("100 bytes go out");
    crowd
}

#[library_benchmark]
#[bench::of_1(Crowd::new(1))]
#[bench::of_100(Crowd::new(100))]
#[bench::of_10000(Crowd::new(10_000))]
fn muxer_receive(mut crowd: Box<Crowd>) -> Box<Crowd> {
    crowd.receive();
    crowd
}

#[library_benchmark]
#[bench::of_1(Crowd::new(1))]
#[bench::of_100(Crowd::new(100))]
#[bench::of_10000(Crowd::new(10_000))]
fn muxer_next_deadline(crowd: Box<Crowd>) -> Box<Crowd> {
    black_box(crowd.next_deadline());
    crowd
}

library_benchmark_group!(
    name = chains,
    benchmarks = [
        tx_chain_ours,
        tx_chain_virtio_vsock,
        rx_chain_ours,
        rx_chain_virtio_vsock
    ]
);
library_benchmark_group!(name = handler, benchmarks = [handler_tx, handler_rx]);
library_benchmark_group!(
    name = muxer,
    benchmarks = [
        muxer_poll_idle,
        muxer_poll_one_ready,
        muxer_receive,
        muxer_next_deadline
    ]
);
main!(library_benchmark_groups = [chains, handler, muxer]);
