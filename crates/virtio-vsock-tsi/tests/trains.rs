//! Packets of one stream that follow one another reach the host in one call. The host's ends keep what came in each call apart.

mod common;

use std::os::fd::OwnedFd;
use std::time::Duration;

use common::pairs::{Pair, World};
use common::pattern;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair, sockopt};
use test_guest::VsockPacket;
use virtio_vsock_tsi::NoLoop;

const SHUTDOWN: u16 = 4;
const RESET: u16 = 3;
const BOTH: u32 = 3;
/// What the event loop is told for the first stream of a fresh device.
const FIRST: u32 = 0;

/// Ends of a pair that keeps messages apart.
fn messages() -> Pair {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// Ends of a pair that does not.
fn stream() -> Pair {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

/// The same, with room for some bytes only.
fn narrow_stream() -> Pair {
    let (ours, hosts) = stream();
    sockopt::set_socket_send_buffer_size(&ours, 1).unwrap();
    (ours, hosts)
}

/// All that is there now.
fn bytes(host: &OwnedFd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while let Ok((len @ 1.., _)) = recv(host, &mut buffer[..], RecvFlags::DONTWAIT) {
        all.extend(&buffer[..len]);
    }
    all
}

/// What came in each call; the last one is empty if the guest has said that there is no more.
fn calls(host: &OwnedFd) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while let Ok((len, _)) = recv(host, &mut buffer[..], RecvFlags::DONTWAIT) {
        all.push(buffer[..len].to_vec());
        if len == 0 {
            break;
        }
    }
    all
}

#[test]
fn packets_that_wait_in_the_ring_are_one_call() {
    let mut world = World::new(messages);
    let mut stream = world.open(1000);
    for data in [&b"one "[..], b"two ", b"three"] {
        world.send(&mut stream, data);
    }
    world.serve();
    assert_eq!(calls(&stream.host), [b"one two three"]);
    assert_eq!(world.queues.tx.in_flight(), 0);
    world.send(&mut stream, b"later");
    world.serve();
    assert_eq!(calls(&stream.host), [b"later"]);
}

#[test]
fn packets_of_two_streams_in_turn_reach_each_in_order() {
    let mut world = World::new(messages);
    let (mut first, mut second) = (world.open(1000), world.open(1001));
    for number in 0..3u8 {
        world.send(&mut first, &[number, number]);
        world.send(&mut second, &[100 + number]);
        world.send(&mut second, &[200 + number]);
    }
    world.serve();
    assert_eq!(calls(&first.host), [[0, 0], [1, 1], [2, 2]]);
    assert_eq!(calls(&second.host), [[100, 200], [101, 201], [102, 202]]);
}

#[test]
fn more_packets_than_one_call_takes_are_several_calls_and_nothing_is_lost() {
    let mut world = World::new(messages);
    let mut stream = world.open(1000);
    let sent: Vec<u8> = (0..35).collect();
    for byte in &sent {
        world.send(&mut stream, &[*byte]);
    }
    world.serve();
    let calls = calls(&stream.host);
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [16, 16, 3]);
    assert_eq!(calls.concat(), sent);
}

#[test]
fn data_before_a_shutdown_or_a_reset_reaches_the_host_before_its_end() {
    for op in [SHUTDOWN, RESET] {
        let mut world = World::new(messages);
        let mut stream = world.open(1000);
        for data in [&b"last "[..], b"words"] {
            world.send(&mut stream, data);
        }
        let end = VsockPacket {
            flags: BOTH,
            ..stream.guest.packet(op)
        };
        world.peer.send(&end);
        world.serve();
        assert_eq!(calls(&stream.host), [&b"last words"[..], b""], "{op}");
    }
}

#[test]
fn data_before_a_malformed_packet_of_the_stream_reaches_the_host() {
    let mut world = World::new(messages);
    let mut stream = world.open(1000);
    world.send(&mut stream, b"good");
    let mut bytes = stream.guest.data_packet(b"bad").to_bytes();
    bytes.truncate(45);
    world.peer.send_cut(&bytes, &[]);
    world.serve();
    assert_eq!(calls(&stream.host)[0], b"good");
    assert_eq!(world.queues.tx.in_flight(), 0);
}

#[test]
fn host_that_is_gone_costs_the_guest_its_stream_and_nothing_else() {
    let mut world = World::new(messages);
    let (mut dead, mut alive) = (world.open(1000), world.open(1001));
    let (gone, _) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    drop(std::mem::replace(&mut dead.host, gone));
    world.send(&mut dead, b"into ");
    world.send(&mut dead, b"the void");
    world.send(&mut alive, b"heard");
    world.serve();
    assert_eq!(calls(&alive.host), [b"heard"]);
    assert_eq!(world.queues.tx.in_flight(), 0);
}

#[test]
fn data_in_a_ring_that_breaks_behind_it_reaches_the_host() {
    let mut world = World::new(messages);
    let mut stream = world.open(1000);
    for data in [&b"before "[..], b"the end"] {
        world.send(&mut stream, data);
    }
    let mem = world.peer.guest().shared_mem();
    let (size, head) = (world.peer.tx.size(), world.peer.tx.avail_idx());
    world.peer.tx.set_avail_entry(&mem, head % size, size);
    world.peer.tx.set_avail_idx(&mem, head.wrapping_add(1));

    let broken = world
        .handler
        .serve(Duration::ZERO, &mut world.queues, &*mem, &mut NoLoop);

    assert!(broken.is_err());
    assert_eq!(calls(&stream.host), [b"before the end"]);
}

#[test]
fn packets_behind_what_the_host_has_not_taken_wait_for_it_and_keep_their_order() {
    let mut world = World::new(narrow_stream);
    let mut stream = world.open(1000);
    let data = pattern(60_000);
    for part in data.chunks(10_000) {
        world.send(&mut stream, part);
    }
    world.serve();
    let mut got = bytes(&stream.host);
    assert!(got.len() < data.len(), "the host takes it all at once");

    let rest = pattern(90);
    for part in rest.chunks(30) {
        world.send(&mut stream, part);
    }
    world.serve();
    for _ in 0..1000 {
        world.writable(FIRST);
        got.extend(bytes(&stream.host));
    }
    assert!(got == [data, rest].concat());
}

#[test]
fn packet_beyond_the_window_costs_the_guest_its_stream_and_nothing_before_it() {
    let mut world = World::new(stream);
    let (mut greedy, mut modest) = (world.open(1000), world.open(1001));
    world.send(&mut greedy, b"in the window");
    let huge = vec![0; 60_000];
    for _ in 0..5 {
        world.send(&mut greedy, &huge);
    }
    world.send(&mut modest, b"heard");
    world.serve();
    assert_eq!(bytes(&modest.host), b"heard");
    assert_eq!(world.queues.tx.in_flight(), 0);
    let resets = world.peer.inbox.iter().filter(|packet| packet.op == RESET);
    assert_eq!(resets.map(|packet| packet.dst_port).collect::<Vec<_>>(), [1000]);
    assert_eq!(bytes(&greedy.host)[..13], *b"in the window");
}
