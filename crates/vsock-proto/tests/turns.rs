//! How much a stream gets in one turn.

use std::time::Duration;

use vsock_proto::wire::{Header, Op};
use vsock_proto::{Cid, Config, Muxer, ProxyId, StreamRead, Transmit};

const NOW: Duration = Duration::ZERO;
const WINDOW: u32 = 1 << 20;

/// A muxer with a stream to each of the guest's ports.
fn muxer(ports: &[u32]) -> (Muxer, Vec<ProxyId>) {
    let mut mux = Muxer::new(Config::new(Cid::DEFAULT_GUEST));
    let ids = ports.iter().map(|&port| open(&mut mux, port)).collect();
    (mux, ids)
}

fn open(mux: &mut Muxer, port: u32) -> ProxyId {
    let id = mux.open_to_guest(NOW, port).expect("within the limits");
    let Some(Transmit::Packet { header: request, .. }) = mux.poll_transmit() else {
        panic!("a REQUEST goes out");
    };
    let response = Header {
        src_cid: request.dst_cid,
        dst_cid: request.src_cid,
        src_port: port,
        dst_port: request.src_port,
        op: Op::Response,
        buf_alloc: WINDOW,
        ..request
    };
    mux.receive(NOW, &response, 0, &[]);
    while mux.poll_action().is_some() {}
    id
}

/// The next turn: whose, the most bytes, the most packets. None when nothing is there or the credit is used up.
fn turn(mux: &mut Muxer) -> Option<(ProxyId, u32, u32)> {
    match mux.poll_transmit()? {
        Transmit::Stream {
            id,
            max_bytes,
            max_packets,
        } => Some((id, max_bytes, max_packets)),
        Transmit::Packet { header, .. } if header.op == Op::CreditRequest => None,
        other => panic!("{other:?} instead of a turn"),
    }
}

#[test]
fn stream_that_is_alone_gets_a_long_turn_and_others_take_short_ones() {
    let (mut mux, ids) = muxer(&[5000, 5001]);
    let [one, other] = ids[..] else { panic!("{ids:?}") };

    mux.readable(one);
    assert_eq!(turn(&mut mux), Some((one, 256 << 10, 64)));
    mux.stream_read(one, StreamRead::More);
    mux.readable(other);
    assert_eq!(turn(&mut mux), Some((one, 64 << 10, 18)), "the other one waits");
    mux.stream_read(one, StreamRead::More);
    assert_eq!(turn(&mut mux), Some((other, 64 << 10, 18)), "the first one waits");
    mux.stream_read(other, StreamRead::Empty);
    assert_eq!(turn(&mut mux), Some((one, 256 << 10, 64)));
    mux.stream_read(one, StreamRead::Empty);
    assert_eq!(turn(&mut mux), None);
}

#[test]
fn long_turns_end_where_the_credit_does() {
    let (mut mux, ids) = muxer(&[5000]);
    mux.readable(ids[0]);
    let mut sent = 0;
    while let Some((id, max_bytes, max_packets)) = turn(&mut mux) {
        let mut left = max_bytes;
        for _ in 0..max_packets {
            let len = left.min(3732);
            left -= len;
            if len > 0 {
                mux.stream_header(id, len).expect("a live stream");
            }
        }
        sent += max_bytes - left;
        mux.stream_read(id, StreamRead::More);
    }
    assert_eq!(sent, WINDOW);
}
