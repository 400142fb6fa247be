//! Every row of section 16 of the TSI specification: malformed and hostile input. The crate's documentation has the
//! table of rows and tests.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{GuestStream, Vm, connect_body, create_body, getname_body, inet_config, listen_body, sockaddr};
use test_guest::{Buffer, Descriptor, EagerDriver, VsockPacket, descriptor_flags};
use virtio_vsock_tsi::{Limits, VsockConfig};

const RST: u16 = 3;

fn vm() -> Vm {
    Vm::new(inet_config())
}

/// An open stream, its guest port, and the host's end.
fn open() -> (Vm, u32, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = vm();
    let port = vm.open_tcp(listener.local_addr().unwrap());
    let host = listener.accept().unwrap().0;
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (vm, port, host)
}

/// A connected stream whose REQUEST has not been sent.
fn awaiting_request() -> (Vm, u32, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = vm();
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, listener.local_addr().unwrap()), 0);
    (vm, port, listener.accept().unwrap().0)
}

/// A stream packet from a port that has no socket that we know of.
fn packet(op: u16) -> VsockPacket {
    GuestStream::connecting(4242, 777).packet(op)
}

/// What the device says to a packet, all of it.
fn answers(vm: &mut Vm, packet: &VsockPacket) -> Vec<VsockPacket> {
    vm.send(packet);
    vm.settle();
    assert!(vm.datagrams.is_empty(), "{:?}", vm.datagrams);
    std::mem::take(&mut vm.strays)
}

#[track_caller]
fn assert_rst(answers: &[VsockPacket], to: &VsockPacket) {
    let expected = VsockPacket {
        src_cid: to.dst_cid,
        dst_cid: to.src_cid,
        src_port: to.dst_port,
        dst_port: to.src_port,
        kind: to.kind,
        op: RST,
        ..VsockPacket::default()
    };
    assert_eq!(answers, [expected]);
}

/// The stream was reset, the host's socket is closed, nothing is left.
#[track_caller]
fn assert_conn_rst(vm: &mut Vm, port: u32, host: &mut TcpStream) {
    vm.wait_reset(port);
    assert!(matches!(host.read(&mut [0; 8]), Ok(0) | Err(_)));
    vm.settle();
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

// 16.1 Rings and header

#[test]
fn avail_index_beyond_the_queue_stops_the_device() {
    let mut vm = vm();
    let mem = vm.peer.guest().shared_mem();
    vm.peer.tx.set_avail_idx(&mem, 300);
    let result = vm.handler.serve(vm.now, &mut vm.queues, &*mem, &mut vm.watcher);
    assert!(result.is_err());
    assert!(!vm.queues.tx.is_ready());
}

#[test]
fn tx_chain_that_loops_is_returned_and_the_next_one_works() {
    let mut vm = vm();
    let buffer = vm.peer.guest().readable(&packet(1).to_bytes());
    let mem = vm.peer.guest().shared_mem();
    let descriptor = test_guest::Descriptor {
        addr: buffer.addr,
        len: 44,
        flags: 1,
        next: 0,
    };
    vm.peer.tx.set_descriptor(&mem, 0, descriptor);
    vm.peer.tx.offer_head(&mem, 0);
    let mem = vm.peer.guest().shared_mem();
    vm.turn();
    vm.turn_later();
    assert_eq!(vm.peer.tx.used_idx(&mem), 1);
    assert_eq!(vm.queues.tx.malformed(), 1);
}

#[test]
fn tx_chain_outside_memory_is_returned() {
    let mut vm = vm();
    let mem = vm.peer.guest().shared_mem();
    vm.peer.tx.add(&mem, &[Buffer::readable(u64::MAX - 20, 44)]).unwrap();
    vm.turn();
    vm.turn_later();
    assert_eq!(vm.peer.tx.poll_all_used(&mem).len(), 1);
}

#[test]
fn tx_chain_with_a_writable_descriptor_is_dropped() {
    let mut vm = vm();
    let header = vm.peer.guest().readable(&packet(1).to_bytes());
    let writable = vm.peer.guest().writable(100);
    let mem = vm.peer.guest().shared_mem();
    vm.peer.tx.add(&mem, &[header, writable]).unwrap();
    vm.settle();
    assert_eq!(vm.stat("dropped_malformed"), 1);
    assert!(vm.strays.is_empty());
    vm.turn_later();
    assert_eq!(vm.peer.tx.poll_all_used(&mem)[0].len, 0);
}

#[test]
fn tx_chain_shorter_than_a_header_is_dropped_at_every_length() {
    let mut vm = vm();
    let bytes = packet(1).to_bytes();
    for len in 1..44 {
        vm.peer.send_cut(&bytes[..len], &[]);
        vm.settle();
    }
    assert_eq!(vm.stat("dropped_malformed"), 43);
    assert!(vm.strays.is_empty());
}

#[test]
fn packet_longer_than_64_kib_resets_its_stream() {
    let (mut vm, port, mut host) = open();
    let mut bytes = vm.stream(port).packet(5).to_bytes();
    bytes[24..28].copy_from_slice(&65537u32.to_le_bytes());
    vm.peer.send_cut(&bytes, &[]);
    assert_conn_rst(&mut vm, port, &mut host);
}

#[test]
fn packet_longer_than_its_chain_resets_its_stream() {
    let (mut vm, port, mut host) = open();
    let mut bytes = vm.stream(port).packet(5).to_bytes();
    bytes[24..28].copy_from_slice(&5u32.to_le_bytes());
    bytes.extend(b"four");
    vm.peer.send_cut(&bytes, &[44]);
    assert_conn_rst(&mut vm, port, &mut host);
}

#[test]
fn packet_longer_than_its_chain_for_nobody_is_dropped() {
    let mut vm = vm();
    let mut bytes = packet(5).to_bytes();
    bytes[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    vm.peer.send_cut(&bytes, &[]);
    vm.settle();
    assert!(vm.strays.is_empty());
    assert_eq!(vm.stat("dropped_malformed"), 1);
}

#[test]
fn rx_chains_that_are_of_no_use_are_returned_and_the_next_is_used() {
    let mut vm = Vm::without_rx(inet_config());
    let tiny = vm.peer.guest().writable(43);
    let no_reply = vm.peer.guest().writable(47);
    let readable = vm.peer.guest().readable(&[0; 4000]);
    vm.peer.post_rx_chain(vec![tiny]);
    vm.peer.post_rx_chain(vec![no_reply]);
    vm.peer.post_rx_chain(vec![readable]);
    vm.peer.post_rx_chain(vec![Buffer::writable(1 << 40, 4000)]);
    vm.peer.post_rx(1);
    assert_rst(&answers(&mut vm, &packet(5)), &packet(5));
    assert_eq!(vm.peer.rx_returned_empty, 4);
    assert_eq!(vm.stat("rx_unusable"), 3);
}

/// A processor of the guest's that adds useless buffers as fast as they go back kept the thread for as long as it liked.
#[test]
fn endless_useless_buffers_do_not_keep_the_thread() {
    const CHAINS: u32 = 200_000;
    let short = |addr| Descriptor {
        addr,
        len: 3,
        flags: descriptor_flags::WRITE,
        next: 0,
    };
    for event in [false, true] {
        let mut vm = Vm::without_rx(inet_config());
        vm.send(&packet(5));
        if event {
            vm.handler.transport_reset();
        }
        let descriptor = short(vm.peer.guest().writable(3).addr);
        let mem = vm.peer.guest().shared_mem();
        let ring = if event { &vm.peer.event } else { &vm.peer.rx };
        let eager = EagerDriver::offering(&mem, ring, CHAINS, descriptor);
        let served = vm
            .handler
            .serve(vm.now, &mut vm.queues, &eager, &mut vm.watcher)
            .unwrap();
        let taken = CHAINS - eager.left();
        assert!(
            (256..20_000).contains(&taken),
            "event queue {event}: {taken} chains in one call"
        );
        assert!(served.again, "event queue {event}");
    }
}

#[test]
fn rx_chain_too_short_for_a_name_is_returned_and_the_name_waits() {
    let mut vm = Vm::without_rx(inet_config());
    let short = vm.peer.guest().writable(100);
    vm.peer.post_rx_chain(vec![short]);
    vm.send_datagram(900, 1026, &getname_body(1, 620, 1));
    vm.settle();
    assert_eq!(vm.peer.rx_returned_empty, 1);
    vm.peer.post_rx(1);
    assert_eq!(vm.datagram_to(900).len(), 136);
}

#[test]
fn rx_chains_of_any_shape_are_filled() {
    let (mut vm, port, mut host) = open();
    vm.peer.repost = false;
    host.write_all(&common::pattern(128 * 3732)).unwrap();
    vm.wait("the ring to be empty", |vm| {
        (vm.stream(port).unread() >= 100_000).then_some(())
    });
    for lens in [
        vec![1; 60],
        vec![44, 100],
        vec![43, 1, 0, 50],
        vec![20_000],
        vec![200_000],
    ] {
        let buffers = vm.peer.guest().writable_pieces(&lens);
        vm.peer.post_rx_chain(buffers);
    }
    vm.peer.repost_rx();
    vm.peer.repost = true;
    assert!(vm.read(port, 128 * 3732) == common::pattern(128 * 3732));
}

#[test]
fn event_buffer_shorter_than_an_event_is_returned_and_the_next_is_used() {
    let mut vm = vm();
    vm.peer.post_event(3);
    vm.peer.post_event(4);
    vm.handler.transport_reset();
    vm.turn();
    assert_eq!(vm.peer.events(), [vec![], vec![0; 4]]);
}

#[test]
fn zero_length_descriptors_in_a_chain_are_skipped() {
    let mut vm = vm();
    let bytes = packet(5).to_bytes();
    vm.peer.send_cut(&bytes, &[0, 0, 10, 10, 44, 44]);
    vm.settle();
    assert_rst(&std::mem::take(&mut vm.strays), &packet(5));
}

// 16.2 Packets

#[test]
fn packet_from_another_cid_is_dropped() {
    let mut vm = vm();
    for src_cid in [0, 1, 2, 4, u64::from(u32::MAX), 3 | 1 << 32] {
        assert!(
            answers(&mut vm, &VsockPacket { src_cid, ..packet(1) }).is_empty(),
            "{src_cid}"
        );
    }
}

#[test]
fn request_to_another_machine_is_reset_and_anything_else_dropped() {
    // The harness expects the host's CID as the sender of everything, so this looks at the raw packets.
    let mut vm = vm();
    for (op, answered) in [(1, true), (2, false), (3, false), (5, false)] {
        vm.peer.send(&VsockPacket {
            dst_cid: 9,
            ..packet(op)
        });
        let mem = vm.peer.guest().shared_mem();
        vm.handler
            .serve(vm.now, &mut vm.queues, &*mem, &mut vm.watcher)
            .unwrap();
        vm.peer.poll();
        let answers: Vec<_> = vm.peer.inbox.drain(..).collect();
        assert_eq!(
            answers
                .iter()
                .map(|a| (a.src_cid, a.dst_port, a.op))
                .collect::<Vec<_>>(),
            if answered { vec![(9, 4242, RST)] } else { vec![] }
        );
    }
}

#[test]
fn packet_of_an_unknown_type_is_reset_with_that_type_unless_it_is_a_reset() {
    let mut vm = vm();
    for kind in [0, 2, 4, u16::MAX] {
        let unknown = VsockPacket { kind, ..packet(1) };
        assert_rst(&answers(&mut vm, &unknown), &unknown);
        assert!(answers(&mut vm, &VsockPacket { kind, ..packet(RST) }).is_empty());
    }
}

/// libkrun issue 841: such packets come from newer kernels.
#[test]
fn operations_that_are_unknown_are_dropped() {
    let (mut vm, port, _host) = open();
    for op in [0, 8, u16::MAX] {
        assert!(answers(&mut vm, &packet(op)).is_empty());
        let known = vm.stream(port).packet(op);
        assert!(answers(&mut vm, &known).is_empty());
    }
    assert!(!vm.stream(port).is_reset());
}

#[test]
fn datagram_with_another_operation_is_dropped() {
    let mut vm = vm();
    for op in [0, 1, 2, 3, 4, 6, 7, 8] {
        let datagram = VsockPacket {
            kind: 3,
            dst_port: 1025,
            payload: vec![0; 136],
            ..packet(op)
        };
        assert!(answers(&mut vm, &datagram).is_empty(), "{op}");
    }
}

#[test]
fn request_with_payload_is_answered_as_without() {
    let (mut vm, port, mut host) = awaiting_request();
    vm.streams.insert((port, 620), GuestStream::connecting(port, 620));
    let request = VsockPacket {
        payload: b"ignored".to_vec(),
        ..vm.stream(port).packet(1)
    };
    vm.send(&request);
    vm.wait("RESPONSE", |vm| vm.stream(port).is_open().then_some(()));
    vm.write(port, b"data");
    vm.turn();
    let mut got = [0; 4];
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"data");
}

#[test]
fn packets_for_an_unknown_stream_are_reset_and_resets_are_not() {
    let mut vm = vm();
    for op in [1, 2, 4, 5, 6, 7] {
        assert_rst(&answers(&mut vm, &packet(op)), &packet(op));
    }
    assert!(answers(&mut vm, &packet(RST)).is_empty());
}

#[test]
fn anything_but_request_before_request_is_a_reset() {
    for op in [2, 4, 5, 6, 7] {
        let (mut vm, port, mut host) = awaiting_request();
        let early = GuestStream::connecting(port, 620).packet(op);
        assert_rst(&answers(&mut vm, &early), &early);
        assert!(matches!(host.read(&mut [0]), Ok(0) | Err(_)));
        assert_eq!(vm.handler.muxer().len(), 0);
    }
}

#[test]
fn data_while_the_host_connects_resets_and_the_connect_is_answered() {
    // A full accept queue leaves a connect undecided.
    let (listener, _fillers) = full_listener();
    let mut vm = vm();
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    let reply_port = vm.fresh_port();
    vm.send_datagram(
        reply_port,
        1025,
        &connect_body(port, &sockaddr(listener.local_addr().unwrap())),
    );
    vm.settle();
    assert!(vm.take_datagram(reply_port).is_none(), "undecided");
    vm.send(&GuestStream::connecting(port, 620).packet(5));
    assert_eq!(vm.datagram_to(reply_port), (-104i32).to_le_bytes());
    vm.settle();
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

/// A listener whose accept queue is full.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    use rustix::net;
    let fd = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
    net::bind(&fd, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    net::listen(&fd, 0).unwrap();
    let listener = TcpListener::from(fd);
    let filler = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, vec![filler])
}

#[test]
fn data_in_await_response_is_a_reset() {
    let (mut vm, mut client, request) = awaiting_response();
    let early = GuestStream::connecting(request.dst_port, request.src_port).packet(5);
    assert_rst(&answers(&mut vm, &early), &early);
    assert!(client.read(&mut [0]).is_err());
}

/// A host client whose REQUEST the guest has not answered.
fn awaiting_response() -> (Vm, TcpStream, VsockPacket) {
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut vm = Vm::new(VsockConfig {
        port_map: [(80, at)].into(),
        ..inet_config()
    });
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    let body = listen_body(port, port, 5, &sockaddr("0.0.0.0:80".parse().unwrap()));
    assert_eq!(vm.request_result(1029, &body), 0);
    let client = TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    (vm, client, request)
}

#[test]
fn data_after_shutdown_of_sending_is_a_reset() {
    let (mut vm, port, mut host) = open();
    vm.shutdown(port, 2);
    let late = vm.stream(port).data_packet(b"late");
    vm.send(&late);
    assert_conn_rst(&mut vm, port, &mut host);
}

#[test]
fn data_without_bytes_only_carries_credit() {
    let (mut vm, port, mut host) = open();
    let empty = vm.stream(port).packet(5);
    assert!(answers(&mut vm, &empty).is_empty());
    vm.write(port, b"x");
    vm.turn();
    host.read_exact(&mut [0]).unwrap();
}

#[test]
fn data_beyond_the_window_is_a_reset() {
    let (mut vm, port, mut host) = open();
    // As much as a driver can send that does not care for credit, while nobody reads.
    let window = vm.stream(port).peer_buf_alloc;
    for _ in 0..2000 {
        if vm.stream(port).is_reset() {
            break;
        }
        let data = vm.stream(port).data_packet(&vec![0; 65536]);
        vm.send(&data);
        vm.turn();
    }
    assert!(window <= 1 << 20);
    assert!(vm.stream(port).is_reset());
    assert_eq!(vm.stat("protocol_violations"), 1);
    let mut all = Vec::new();
    let _ = host.read_to_end(&mut all);
}

#[test]
fn fwd_cnt_backwards_or_beyond_what_was_sent_is_a_reset() {
    for fwd_cnt in [u32::MAX, 101, 1 << 31] {
        let (mut vm, port, mut host) = open();
        host.write_all(&[0; 100]).unwrap();
        assert_eq!(vm.read(port, 100).len(), 100);
        let update = VsockPacket {
            fwd_cnt,
            ..vm.stream(port).packet(6)
        };
        vm.send(&update);
        assert_conn_rst(&mut vm, port, &mut host);
    }
}

#[test]
fn guest_without_any_buffer_gets_no_data_until_it_has_one() {
    let (mut vm, port, mut host) = open();
    vm.stream(port).buf_alloc = 0;
    let none = vm.stream(port).packet(6);
    vm.send(&none);
    host.write_all(b"wait").unwrap();
    vm.settle();
    assert_eq!(vm.stream(port).unread(), 0);
    vm.stream(port).buf_alloc = 1000;
    let some = vm.stream(port).packet(6);
    vm.send(&some);
    assert_eq!(vm.read(port, 4), b"wait");
}

#[test]
fn guest_with_a_huge_buffer_gets_1_mib_in_flight_at_most() {
    let (mut vm, port, host) = open();
    vm.stream(port).buf_alloc = u32::MAX;
    let huge = vm.stream(port).packet(6);
    vm.send(&huge);
    let writer = std::thread::spawn(move || {
        let mut host = host;
        host.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        host.write_all(&common::pattern(16 << 20)).unwrap();
    });
    vm.wait("a stall", |vm| (vm.stat("credit_stalls") > 0).then_some(()));
    vm.settle();
    assert_eq!(vm.stream(port).unread(), 1 << 20);
    assert!(vm.read(port, 16 << 20) == common::pattern(16 << 20));
    writer.join().unwrap();
}

#[test]
fn request_to_the_rendezvous_port_without_a_connected_proxy_is_reset() {
    let mut vm = vm();
    let request = VsockPacket {
        dst_port: 620,
        ..packet(1)
    };
    assert_rst(&answers(&mut vm, &request), &request);
    vm.create(request.src_port, 2, 1);
    assert_rst(&answers(&mut vm, &request), &request);
}

#[test]
fn response_out_of_turn_is_a_reset() {
    let (mut vm, port, mut host) = open();
    let response = vm.stream(port).packet(2);
    vm.send(&response);
    assert_conn_rst(&mut vm, port, &mut host);
}

#[test]
fn request_on_an_open_stream_resets_it() {
    let (mut vm, port, mut host) = open();
    let request = vm.stream(port).packet(1);
    vm.send(&request);
    assert_conn_rst(&mut vm, port, &mut host);
}

/// libkrun: a RST for a listener deadlocked the device.
#[test]
fn stream_packets_for_a_listener_are_reset_and_it_stays() {
    let (mut vm, _client, request) = awaiting_response();
    let to_listener = GuestStream::connecting(request.dst_port, 620);
    for op in [1, 2, 4, 5, 6, 7] {
        assert_rst(&answers(&mut vm, &to_listener.packet(op)), &to_listener.packet(op));
    }
    assert!(answers(&mut vm, &to_listener.packet(RST)).is_empty());
    assert_eq!(vm.handler.muxer().len(), 2);
}

#[test]
fn route_listeners_cannot_be_named_by_a_guest() {
    let dir = tempfile::tempdir().unwrap();
    let routes = vec![virtio_vsock_tsi::Route::Listen {
        port: 80,
        path: dir.path().join("l"),
    }];
    let mut vm = Vm::new(VsockConfig {
        routes,
        ..inet_config()
    });
    for (guest, host) in [(80, 620), (80, 80), (620, 80)] {
        assert_eq!(
            vm.request(1026, &getname_body(guest, host, 1))[..4],
            (-22i32).to_le_bytes()
        );
        let data = GuestStream::connecting(guest, host).packet(5);
        assert_rst(&answers(&mut vm, &data), &data);
    }
}

#[test]
fn shutdown_with_unknown_flags_is_masked() {
    let (mut vm, port, mut host) = open();
    vm.shutdown(port, 0xffff_fffc);
    vm.write(port, b"x");
    vm.turn();
    host.read_exact(&mut [0]).unwrap();
    vm.shutdown(port, 0xffff_fffe);
    vm.turn();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn flood_of_credit_requests_is_answered_once_per_buffer() {
    let (mut vm, port, _host) = open();
    vm.peer.repost = false;
    let before = vm.stream(port).packets.len();
    let ask = vm.stream(port).packet(7);
    for _ in 0..1000 {
        vm.send(&ask);
        let mem = vm.peer.guest().shared_mem();
        if vm.peer.tx_in_flight() > 6 {
            vm.handler
                .serve(vm.now, &mut vm.queues, &*mem, &mut vm.watcher)
                .unwrap();
        }
    }
    vm.settle();
    let answers = vm.stream(port).packets.len() - before;
    assert!((1..=200).contains(&answers), "{answers}");
}

#[test]
fn packets_from_ports_that_no_socket_has_are_dropped() {
    let mut vm = vm();
    for src_port in [0, u32::MAX] {
        assert!(answers(&mut vm, &VsockPacket { src_port, ..packet(1) }).is_empty());
        assert!(
            answers(
                &mut vm,
                &VsockPacket {
                    src_port,
                    kind: 3,
                    dst_port: 1025,
                    ..packet(5)
                }
            )
            .is_empty()
        );
    }
}

// 16.3 Control messages

#[test]
fn control_messages_of_every_short_length_are_answered_or_dropped() {
    let mut vm = vm();
    for (to, fixed) in [(1025, 8), (1026, 12), (1029, 16), (1030, 8)] {
        for len in 0..fixed {
            let reply = vm.request(to, &vec![0; len]);
            assert_eq!(reply.len(), if to == 1026 { 136 } else { 4 });
            assert_eq!(reply[..4], (-22i32).to_le_bytes(), "{to} {len}");
        }
    }
    for (to, fixed) in [(1024, 8), (1027, 8), (1031, 8)] {
        for len in 0..fixed {
            vm.send_datagram(9000, to, &vec![1; len]);
        }
    }
    vm.settle();
    assert!(vm.datagrams.is_empty());
    assert_eq!(vm.stat("control_malformed"), 8 + 12 + 16 + 8 + 3 * 8);
}

#[test]
fn control_messages_with_a_tail_are_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = vm();
    let mut body = create_body(7000, 2, 1);
    body.extend([9; 5000]);
    vm.send_datagram(9000, 1024, &body);
    let mut body = connect_body(7000, &sockaddr(listener.local_addr().unwrap()));
    body.extend([9; 60_000]);
    assert_eq!(vm.request_result(1025, &body), 0);
}

#[test]
fn address_without_its_padding_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = vm();
    vm.create(7000, 2, 1);
    let body = connect_body(7000, &sockaddr(listener.local_addr().unwrap()));
    assert_eq!(vm.request_result(1025, &body[..24]), 0);
}

#[test]
fn address_of_a_wrong_length_is_einval() {
    let mut vm = vm();
    vm.create(7000, 2, 1);
    for addr_len in [0u32, 1, 2, 15, 17, 28, 128, 129, 200, u32::MAX] {
        let mut body = connect_body(7000, &sockaddr("127.0.0.1:1".parse().unwrap()));
        body[4..8].copy_from_slice(&addr_len.to_le_bytes());
        assert_eq!(vm.request_result(1025, &body), -22, "{addr_len}");
    }
}

#[test]
fn address_of_another_family_is_einval() {
    let mut vm = vm();
    vm.create(7000, 2, 1);
    for addr in [
        sockaddr("[::1]:80".parse().unwrap()),
        common::sockaddr_un("/x"),
        vec![0xff; 16],
    ] {
        assert_eq!(vm.request_result(1025, &connect_body(7000, &addr)), -22);
        assert_eq!(vm.request_result(1029, &listen_body(7000, 7000, 1, &addr)), -22);
    }
}

/// boxlite PR 454: "network off" must mean that nothing of TSI works.
#[test]
fn control_ports_without_tsi_mean_nothing() {
    let mut vm = Vm::new(VsockConfig::default());
    for to in 1024..=1031 {
        vm.send_datagram(9000, to, &[0; 144]);
    }
    vm.settle();
    assert!(vm.datagrams.is_empty());
    assert_eq!(vm.handler.muxer().len(), 0);
    assert_eq!(vm.stat("datagrams_undeliverable"), 8);
}

#[test]
fn creates_of_unknown_families_and_types_are_refused_and_the_connect_says_why() {
    let mut vm = vm();
    let to = "127.0.0.1:1".parse().unwrap();
    for (port, family, kind, errno) in [
        (7000, 1, 1, -97),
        (7001, 16, 1, -97),
        (7002, 40, 2, -97),
        (7003, 2, 3, -22),
        (7004, 2, 0, -22),
    ] {
        vm.create(port, family, kind);
        assert_eq!(vm.connect(port, to), errno, "{family} {kind}");
    }
    assert_eq!(vm.handler.muxer().len(), 0);
}

#[test]
fn creates_beyond_the_limit_are_refused_and_the_connect_says_emfile() {
    let limits = Limits {
        proxies: 3,
        ..Limits::default()
    };
    let mut vm = Vm::new(VsockConfig {
        limits,
        ..inet_config()
    });
    for port in 7000..7010 {
        vm.create(port, 2, 1);
    }
    assert_eq!(vm.connect(7009, "127.0.0.1:1".parse().unwrap()), -24);
    assert_eq!((vm.handler.muxer().len(), vm.stat("over_limit")), (3, 7));
    // A port that is free again is not remembered as refused.
    vm.release(7000, 620);
    vm.create(7009, 2, 1);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(vm.connect(7009, closed), -111);
}

#[test]
fn create_for_a_key_in_use_replaces_it() {
    let (mut vm, port, mut host) = open();
    vm.create(port, 2, 1);
    vm.turn();
    assert!(matches!(host.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (1, 0));
    vm.settle();
    assert!(!vm.stream(port).is_reset(), "a RST would meet the new socket");
}

#[test]
fn create_for_ports_that_no_socket_has_is_refused() {
    let mut vm = vm();
    vm.create(0, 2, 1);
    vm.create(u32::MAX, 2, 1);
    vm.turn();
    assert_eq!(vm.handler.muxer().len(), 0);
}

#[test]
fn connect_on_an_open_stream_is_eisconn() {
    let (mut vm, port, host) = open();
    assert_eq!(vm.connect(port, host.local_addr().unwrap()), -106);
    assert!(vm.stream(port).is_open());
}

#[test]
fn connect_again_before_request_is_answered_0() {
    let (mut vm, port, host) = awaiting_request();
    assert_eq!(vm.connect(port, host.local_addr().unwrap()), 0);
}

/// Two CONNECTs of a socket, the first from port 9001 and the second from 9002, and the host decides neither.
fn connecting_twice() -> (Vm, TcpListener, Vec<TcpStream>) {
    let (listener, fillers) = full_listener();
    let mut vm = vm();
    vm.create(7000, 2, 1);
    let body = connect_body(7000, &sockaddr(listener.local_addr().unwrap()));
    vm.send_datagram(9001, 1025, &body);
    vm.settle();
    vm.send_datagram(9002, 1025, &body);
    vm.settle();
    (vm, listener, fillers)
}

#[test]
fn connect_again_while_the_first_is_undecided_answers_only_the_second() {
    let (mut vm, listener, _fillers) = connecting_twice();
    listener.accept().unwrap();
    assert_eq!(vm.datagram_to(9002), [0; 4]);
    vm.settle();
    assert!(vm.datagrams.is_empty());
}

#[test]
fn release_while_two_connects_are_undecided_answers_neither() {
    let (mut vm, _listener, _fillers) = connecting_twice();
    vm.release(7000, 620);
    vm.settle();
    assert!(vm.datagrams.is_empty(), "the guest closed the socket, nobody waits");
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

#[test]
fn getname_of_what_has_no_name_says_so() {
    let mut vm = vm();
    vm.create(7000, 2, 1);
    vm.create(7001, 2, 2);
    for (port, host_port, errno) in [
        (7000, 620, -107i32),
        (7001, 620, -107),
        (7002, 620, -22),
        (7000, 621, -22),
    ] {
        let reply = vm.request(1026, &getname_body(port, host_port, 1));
        assert_eq!(reply.len(), 136);
        assert_eq!(reply[..4], errno.to_le_bytes(), "{port} {host_port}");
        assert!(reply[4..].iter().all(|&byte| byte == 0));
    }
}

/// libkrun: GETNAME on a route's key panicked.
#[test]
fn getname_and_release_of_a_plain_stream_do_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let routes = vec![virtio_vsock_tsi::Route::Connect { port: 52, path }];
    let mut vm = Vm::new(VsockConfig {
        routes,
        ..inet_config()
    });
    let port = vm.fresh_port();
    vm.open_stream(port, 52);
    assert_eq!(
        vm.request(1026, &getname_body(port, 52, 1))[..4],
        (-107i32).to_le_bytes()
    );
    vm.release(port, 52);
    vm.settle();
    assert!(vm.stream(port).is_open());
    assert_eq!(vm.handler.muxer().len(), 1);
}

#[test]
fn sendto_on_unknown_and_stream_proxies_is_dropped() {
    let mut vm = vm();
    vm.create(7000, 2, 1);
    let to = sockaddr("127.0.0.1:9".parse().unwrap());
    for port in [7000, 7001] {
        vm.send_datagram(9000, 1027, &connect_body(port, &to));
        vm.send_datagram(port, 1028, b"x");
    }
    vm.settle();
    assert_eq!(vm.stat("datagrams_undeliverable"), 4);
    assert_eq!(vm.watcher.watched(), 0);
}

#[test]
fn release_of_unknown_keys_is_ignored() {
    let mut vm = vm();
    for (port, host_port) in [(0, 0), (0, 620), (7000, 620), (u32::MAX, u32::MAX)] {
        vm.release(port, host_port);
    }
    vm.settle();
    assert!(vm.datagrams.is_empty() && vm.strays.is_empty());
}

#[test]
fn second_request_on_a_reply_port_cancels_the_first_ones_reply() {
    let (listener, _fillers) = full_listener();
    let mut vm = vm();
    vm.create(7000, 2, 1);
    vm.send_datagram(
        9000,
        1025,
        &connect_body(7000, &sockaddr(listener.local_addr().unwrap())),
    );
    vm.send_datagram(9000, 1026, &getname_body(7001, 620, 1));
    assert_eq!(vm.datagram_to(9000).len(), 136);
    let reset = GuestStream::connecting(7000, 620).packet(5);
    vm.send(&reset);
    vm.settle();
    assert!(vm.datagrams.is_empty());
}

/// A name that had found no buffer large enough came before the answer, and was taken for it.
#[test]
fn second_request_on_a_reply_port_cancels_a_reply_that_found_no_buffer() {
    let mut vm = Vm::without_rx(inet_config());
    let short = vm.peer.guest().writable(100);
    vm.peer.post_rx_chain(vec![short]);
    vm.send_datagram(900, 1026, &getname_body(1, 620, 1));
    vm.settle();
    vm.send_datagram(900, 1025, &connect_body(1, &sockaddr("10.0.0.1:80".parse().unwrap())));
    vm.settle();
    vm.peer.post_rx(8);
    assert_eq!(vm.datagram_to(900), (-111i32).to_le_bytes());
    vm.settle();
    assert!(vm.datagrams.is_empty());
}

/// An unbounded number of requests without a buffer for their answers.
#[test]
fn requests_without_end_and_no_receive_buffer_stay_bounded() {
    let limits = Limits {
        requests: 100,
        ..Limits::default()
    };
    let mut vm = Vm::without_rx(VsockConfig {
        limits,
        ..inet_config()
    });
    for port in 10_000..10_300 {
        vm.send_datagram(port, 1026, &getname_body(1, 620, 1));
        vm.turn();
    }
    assert_eq!(vm.stat("over_limit"), 200);
    vm.peer.post_rx(120);
    vm.settle();
    assert_eq!(vm.datagrams.len(), 100);
}
