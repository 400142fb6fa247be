//! Saving a device and going on with another one.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::{Vm, connect_body, inet_config, listen_body, sockaddr};
use virtio_vsock_tsi::vsock_proto::state::ReplyState;
use virtio_vsock_tsi::{Limits, VsockConfig};

const O_NONBLOCK: u32 = 0x800;

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn published(at: SocketAddr) -> VsockConfig {
    VsockConfig {
        port_map: [(80, at)].into(),
        ..inet_config()
    }
}

/// A guest that listens, and waits for somebody to come.
fn listening(vm: &mut Vm) -> (u32, u32) {
    let (port, waits) = (vm.fresh_port(), vm.fresh_port());
    vm.create(port, 2, 1);
    vm.listening.push(port);
    let body = listen_body(port, port, 5, &sockaddr("0.0.0.0:80".parse().unwrap()));
    assert_eq!(vm.request_result(1029, &body), 0);
    vm.send_datagram(waits, 1030, &[port.to_le_bytes(), 0u32.to_le_bytes()].concat());
    vm.settle();
    (port, waits)
}

/// The guest goes on at another device, its memory and rings as they were.
fn moved(vm: &mut Vm, config: VsockConfig) {
    let mem = vm.peer.guest().shared_mem();
    vm.handler.quiesce(&mut vm.queues, &*mem).unwrap();
    let state = vm.handler.save();
    vm.handler.reset();
    vm.move_to(config);
    vm.handler.restore(vm.now, &state, &mut vm.watcher).unwrap();
    vm.peer.post_event(4);
    vm.turn();
    assert_eq!(
        vm.peer.events(),
        [[0; 4]],
        "the guest is told that its streams are gone"
    );
    vm.peer.post_event(4);
}

/// Firecracker 5882: a connection that came before the guest had looked at the event ended with the others, unheard of.
#[test]
fn line_22_nothing_comes_before_the_driver_is_done_with_a_transport_reset() {
    for mut vm in [Vm::new, Vm::with_event_idx].map(|vm| vm(published(free_port()))) {
        let at = free_port();
        vm.move_to(published(at));
        for _ in 0..8 {
            vm.peer.post_event(4);
        }
        listening(&mut vm);
        vm.listening.clear();
        let state = vm.handler.save();
        vm.handler.reset();
        vm.move_to(published(at));
        vm.handler.restore(vm.now, &state, &mut vm.watcher).unwrap();
        let _client = TcpStream::connect(at).unwrap();
        vm.settle();
        assert_eq!(vm.peer.events(), [[0; 4]]);
        assert!(vm.strays.is_empty(), "{:?}", vm.strays);

        let mem = vm.peer.guest().shared_mem();
        vm.peer.event.wants_kick(&mem);
        vm.peer.post_event(4);
        assert!(vm.peer.event.wants_kick(&mem), "nothing else would wake the device");
        assert_eq!(vm.wait("REQUEST", |vm| vm.strays.pop()).op, 1);
    }
}

#[test]
fn listener_goes_on_after_a_restore_and_answers_the_accept_from_before() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, waits) = listening(&mut vm);
    moved(&mut vm, published(at));
    vm.listening.push(port);

    let mut client = TcpStream::connect(at).unwrap();
    client.write_all(b"after").unwrap();
    assert_eq!(vm.datagram_to(waits), [0; 4]);
    assert_eq!(vm.read(port, 5), b"after");
}

#[test]
fn datagram_socket_goes_on_after_a_restore_where_it_was() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    let (port, reply_port) = (vm.fresh_port(), vm.fresh_port());
    vm.create(port, 2, 2);
    let body = connect_body(port, &sockaddr(peer.local_addr().unwrap()));
    vm.send_datagram(reply_port, 1027, &body);
    vm.settle();
    moved(&mut vm, inet_config());

    vm.send_datagram(port, 1028, b"to the same");
    vm.settle();
    let mut buf = [0; 20];
    let (len, from) = peer.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"to the same");
    peer.send_to(b"answer", from).unwrap();
    assert_eq!(vm.datagram_to(port), b"answer");
}

#[test]
fn stream_is_gone_after_a_restore_and_its_host_hears_of_it() {
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    let port = vm.open_tcp(host.local_addr().unwrap());
    let (mut client, _) = host.accept().unwrap();
    vm.send_until_the_host_is_full(port, &vec![7; 16 << 20]);
    let old = vm.stream(port).packet(5);
    moved(&mut vm, inet_config());

    vm.send(&old);
    vm.settle();
    assert_eq!(vm.strays.iter().map(|packet| packet.op).collect::<Vec<_>>(), [3]);
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Nothing that a guest or a host can see.
#[test]
fn save_without_a_restore_changes_nothing() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, waits) = listening(&mut vm);
    let mut client = TcpStream::connect(at).unwrap();
    client.write_all(b"before").unwrap();
    assert_eq!(vm.datagram_to(waits), [0; 4]);
    let mem = vm.peer.guest().shared_mem();
    vm.handler.quiesce(&mut vm.queues, &*mem).unwrap();
    let state = vm.handler.save();
    assert_eq!((state.muxer.listeners.len(), state.muxer.replies.len()), (1, 0));

    client.write_all(b" and after").unwrap();
    assert_eq!(vm.read(port, 16), b"before and after");
    vm.write(port, b"answer");
    vm.settle();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    assert!(vm.strays.is_empty());
}

/// A device with the answer to a GETNAME from `waits`, which no buffer takes.
fn with_a_held_answer(config: VsockConfig) -> (Vm, u32) {
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::without_rx(config);
    let (port, waits) = (vm.fresh_port(), vm.fresh_port());
    vm.create(port, 2, 2);
    let reply_port = vm.fresh_port();
    vm.send_datagram(
        reply_port,
        1025,
        &connect_body(port, &sockaddr(host.local_addr().unwrap())),
    );
    vm.turn();
    for _ in 0..4 {
        let small = vm.peer.guest().writable(44 + 20);
        vm.peer.post_rx_chain(vec![small]);
    }
    vm.send_datagram(waits, 1026, &common::getname_body(port, 0, 1));
    vm.settle();
    (vm, waits)
}

fn accept_body(port: u32, flags: u32) -> Vec<u8> {
    [port.to_le_bytes(), flags.to_le_bytes()].concat()
}

/// A guest could make a state that no device took: the answer that found no buffer, and the one to the request after it.
#[test]
fn answer_that_found_no_buffer_gives_way_to_the_one_to_a_later_request() {
    let (mut vm, waits) = with_a_held_answer(inet_config());
    vm.send_datagram(waits, 1030, &accept_body(9, 0));
    vm.settle();

    let state = vm.handler.save();
    let answers: Vec<_> = state
        .muxer
        .replies
        .iter()
        .filter(|reply| reply.reply_port == waits)
        .collect();
    assert!(
        matches!(answers[..], [ReplyState { control_port: 1030, .. }]),
        "{answers:?}"
    );
    let mut other = Vm::new(inet_config());
    other.handler.restore(vm.now, &state, &mut other.watcher).unwrap();
    other.peer.post_event(4);
    other.turn();
    other.peer.post_event(4);
    assert_eq!(other.datagram_to(waits), (-22i32).to_le_bytes());
}

#[test]
fn answer_that_found_no_buffer_gives_way_to_an_accept_that_waits() {
    let at = free_port();
    let (mut vm, waits) = with_a_held_answer(published(at));
    let listener = vm.fresh_port();
    vm.create(listener, 2, 1);
    let body = listen_body(listener, listener, 5, &sockaddr("0.0.0.0:80".parse().unwrap()));
    let reply_port = vm.fresh_port();
    vm.send_datagram(reply_port, 1029, &body);
    vm.send_datagram(waits, 1030, &accept_body(listener, 0));
    vm.settle();
    let state = vm.handler.save();
    assert_eq!(state.muxer.listeners[0].accept_reply_port, Some(waits));
    drop(vm);
    let mut other = Vm::new(published(at));
    other
        .handler
        .restore(Duration::ZERO, &state, &mut other.watcher)
        .unwrap();
}

/// The one that was let in while the other was late made two, and the guest's own limit is one.
#[test]
fn late_answers_beyond_the_backlog_can_be_saved() {
    let at = free_port();
    let config = || VsockConfig {
        limits: Limits {
            backlog: 1,
            ..Limits::default()
        },
        ..published(at)
    };
    let mut vm = Vm::new(config());
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    let body = listen_body(port, port, 5, &sockaddr("0.0.0.0:80".parse().unwrap()));
    assert_eq!(vm.request_result(1029, &body), 0);
    let _late = TcpStream::connect(at).unwrap();
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    vm.now += Duration::from_millis(10_001);
    vm.turn();
    vm.listening.push(port);
    let _other = TcpStream::connect(at).unwrap();
    vm.wait("a stream", |vm| (vm.streams.len() == 1).then_some(()));
    vm.send(&common::GuestStream::connecting(port, request.src_port).packet(2));
    vm.settle();
    moved(&mut vm, config());
    let mut accepted = || vm.request_result(1030, &accept_body(port, O_NONBLOCK));
    assert_eq!((accepted(), accepted(), accepted()), (0, 0, -11));
}

/// Names and answers of the last 64 were kept; a usual backlog is 128.
#[test]
fn crowd_before_a_listener_is_let_in_with_its_names_after_a_restore() {
    const CLIENTS: usize = 100;
    for answered_before in [false, true] {
        let at = free_port();
        let mut vm = Vm::new(published(at));
        let port = vm.fresh_port();
        vm.create(port, 2, 1);
        let body = listen_body(port, port, 4096, &sockaddr("0.0.0.0:80".parse().unwrap()));
        assert_eq!(vm.request_result(1029, &body), 0);
        let _clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(at).unwrap()).collect();
        let requests = vm.wait("REQUESTs", |vm| {
            (vm.strays.len() == CLIENTS).then(|| std::mem::take(&mut vm.strays))
        });
        let answer = |vm: &mut Vm| {
            for request in &requests {
                vm.send(&common::GuestStream::connecting(port, request.src_port).packet(2));
            }
            vm.settle();
        };
        if answered_before {
            answer(&mut vm);
        }
        moved(&mut vm, published(at));
        if !answered_before {
            answer(&mut vm);
        }
        for request in &requests {
            assert_eq!(vm.request_result(1030, &accept_body(port, O_NONBLOCK)), 0);
            let name = vm.request(1026, &common::getname_body(port, request.src_port, 2));
            assert_eq!(name[..8], [0, 0, 0, 0, 16, 0, 0, 0], "the name of a client");
        }
        assert_eq!(vm.request_result(1030, &accept_body(port, O_NONBLOCK)), -11);
    }
}

/// Each restore took the names that it was given for connections without an answer, and each answer for another one.
#[test]
fn answers_that_a_guest_repeats_do_not_add_up_from_snapshot_to_snapshot() {
    let at = free_port();
    let config = || VsockConfig {
        limits: Limits {
            requests: 4,
            ..Limits::default()
        },
        ..published(at)
    };
    let mut vm = Vm::new(config());
    let (port, _) = listening(&mut vm);
    let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(at).unwrap()).collect();
    vm.wait("streams", |vm| (vm.streams.len() == clients.len()).then_some(()));
    let ports: Vec<_> = vm.streams.values().map(|stream| stream.host_port).collect();
    for _ in 0..110 {
        moved(&mut vm, config());
        for &host_port in &ports {
            vm.send(&common::GuestStream::connecting(port, host_port).packet(2));
        }
        vm.settle();
    }
}

/// It was told once more, and the buffer of the first time opened the gate before the second was looked at.
#[test]
fn line_22_driver_that_is_not_done_with_an_event_is_told_no_other_after_a_restore() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    for _ in 0..8 {
        vm.peer.post_event(4);
    }
    listening(&mut vm);
    vm.listening.clear();
    for _ in 0..2 {
        let mem = vm.peer.guest().shared_mem();
        vm.handler.quiesce(&mut vm.queues, &*mem).unwrap();
        let state = vm.handler.save();
        vm.handler.reset();
        vm.move_to(published(at));
        vm.handler.restore(vm.now, &state, &mut vm.watcher).unwrap();
        let mem = vm.peer.guest().shared_mem();
        vm.handler
            .serve(vm.now, &mut vm.queues, &*mem, &mut vm.watcher)
            .unwrap();
    }
    let _client = TcpStream::connect(at).unwrap();
    vm.settle();
    assert_eq!(vm.peer.events(), [[0; 4]]);
    assert!(vm.strays.is_empty(), "{:?}", vm.strays);
    vm.peer.post_event(4);
    assert_eq!(vm.wait("REQUEST", |vm| vm.strays.pop()).op, 1);
}

#[test]
fn accept_that_is_asked_again_after_a_restore_still_gets_the_connection() {
    let at = free_port();
    let mut vm = Vm::without_rx(published(at));
    vm.peer.repost = false;
    // For the answer to LISTEN, and REQUEST.
    vm.peer.post_rx(2);
    let (port, waits) = listening(&mut vm);
    vm.listening.clear();
    let _client = TcpStream::connect(at).unwrap();
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    vm.send(&common::GuestStream::connecting(port, request.src_port).packet(2));
    vm.turn();
    assert_eq!(vm.handler.save().muxer.replies.len(), 1, "the answer is not sent");
    moved(&mut vm, published(at));
    vm.peer.post_rx(8);
    vm.send_datagram(waits, 1030, &accept_body(port, O_NONBLOCK));
    assert_eq!(vm.datagram_to(waits), [0; 4]);
}

#[test]
fn connection_that_the_guest_answers_after_a_restore_is_accepted_all_the_same() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, waits) = listening(&mut vm);
    vm.listening.clear();
    let _client = TcpStream::connect(at).unwrap();
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    moved(&mut vm, published(at));
    vm.send(&common::GuestStream::connecting(port, request.src_port).packet(2));
    assert_eq!(vm.datagram_to(waits), [0; 4]);
}

/// No driver posts so many, so it was never given anything again.
#[test]
fn state_that_waits_for_more_event_buffers_than_there_are_is_done_with_when_all_are_there() {
    let mut vm = Vm::new(inet_config());
    let mut state = vm.handler.save();
    state.reset_done_at = Some(u16::MAX);
    vm.handler.reset();
    vm.move_to(inet_config());
    vm.handler.restore(vm.now, &state, &mut vm.watcher).unwrap();
    for _ in 0..vm.queues.event.size() {
        vm.peer.post_event(4);
    }
    assert_eq!(vm.request(1026, &common::getname_body(1, 620, 1)).len(), 136);
}
