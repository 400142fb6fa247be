//! Lines 12 to 22 of the list of hostile and awkward inputs: defects that systems of this field really had. Each test
//! names where.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::{GuestStream, Vm, connect_body, create_body, inet_config, listen_body, pattern, sockaddr};
use test_guest::{Buffer, VsockPacket};
use virtio_vsock_tsi::{Limits, Route, VsockConfig};

/// An open stream, its guest port, and the host's end.
fn open() -> (Vm, u32, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    let port = vm.open_tcp(listener.local_addr().unwrap());
    let host = listener.accept().unwrap().0;
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (vm, port, host)
}

fn read_exact(host: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    host.read_exact(&mut bytes).unwrap();
    bytes
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn wildcard(port: u16) -> Vec<u8> {
    sockaddr(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
}

/// libkrun, head of 2026-06: a chain of many large descriptors with a length of 1 was concatenated whole.
#[test]
fn line_12_huge_chain_with_one_byte_of_payload_passes_one_byte_on() {
    let (mut vm, port, mut host) = open();
    let header = vm.stream(port).data_packet(b"!").to_bytes();
    let head = vm.peer.guest().readable(&header[..44]);
    let mut chain = vec![head, vm.peer.guest().readable(b"!")];
    let large = Buffer::readable(0, 7 << 20);
    chain.extend(std::iter::repeat_n(large, 200));
    let mem = vm.peer.guest().shared_mem();
    vm.peer.tx.add(&mem, &chain).unwrap();
    vm.turn();
    assert_eq!(read_exact(&mut host, 1), b"!");
    assert_eq!(vm.stat("bytes_from_guest"), 1);
}

/// CVE-2019-18960, Firecracker 0.18 and 0.19: a data descriptor that leaves its region.
#[test]
fn line_13_descriptor_that_leaves_memory_is_neither_read_nor_written() {
    let (mut vm, port, _host) = open();
    let end = 8 << 20;
    let mut header = vm.stream(port).packet(5).to_bytes();
    header[24..28].copy_from_slice(&65536u32.to_le_bytes());
    let head = vm.peer.guest().readable(&header);
    let mem = vm.peer.guest().shared_mem();
    vm.peer
        .tx
        .add(&mem, &[head, Buffer::readable(end - 100, 65536)])
        .unwrap();
    vm.turn();
    assert_eq!(vm.queues.tx.malformed(), 1);
    assert_eq!(vm.stat("bytes_from_guest"), 0);

    let mut vm = Vm::without_rx(inet_config());
    vm.peer.post_rx_chain(vec![Buffer::writable(end - 100, 3776)]);
    vm.peer.post_rx(1);
    vm.send(&GuestStream::connecting(1, 2).packet(5));
    vm.settle();
    assert_eq!((vm.queues.rx.malformed(), vm.strays.len()), (1, 1));
    assert_eq!(vm.peer.guest().read(end - 100, 100), vec![0; 100]);
}

/// libkrun: the length was read again from guest memory after its check.
#[test]
fn line_14_header_that_changes_while_it_is_handled_is_one_header() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use vm_memory::{Bytes, GuestAddress};

    let (mut vm, port, mut host) = open();
    host.set_nonblocking(true).unwrap();
    let bytes = VsockPacket {
        payload: b"abcd".to_vec(),
        ..vm.stream(port).packet(5)
    }
    .to_bytes();
    let buffer = vm.peer.guest().readable(&bytes);
    let mem = vm.peer.guest().shared_mem();
    let stop = Arc::new(AtomicBool::new(false));
    let racer = std::thread::spawn({
        let (mem, stop) = (Arc::clone(&mem), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                for len in [4u32, 0, 3] {
                    mem.write_obj(len.to_le(), GuestAddress(buffer.addr + 24)).unwrap();
                }
            }
        }
    });
    let mut got: Vec<u8> = Vec::new();
    vm.turn_later();
    assert_eq!(vm.peer.tx_in_flight(), 0);
    for _ in 0..3000 {
        vm.peer.tx.add(&mem, &[buffer]).unwrap();
        vm.turn();
        vm.turn_later();
        assert_eq!(vm.peer.tx.poll_all_used(&mem).len(), 1);
        let mut buf = [0; 64];
        if let Ok(len) = host.read(&mut buf) {
            got.extend(&buf[..len]);
        }
    }
    stop.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert_eq!(vm.stat("bytes_from_guest"), u64::try_from(got.len()).unwrap());
    assert!(!vm.stream(port).is_reset());
}

/// libkrun: parsers that check 4 or 12 bytes and slice at 8 or 16, or trust `addr_len`.
#[test]
fn line_15_control_messages_of_every_length_are_survived() {
    let mut vm = Vm::new(inet_config());
    vm.create(7000, 2, 1);
    for to in 1024..=1031u32 {
        for len in 0..=160usize {
            for addr_len in [
                0u32,
                1,
                2,
                3,
                15,
                16,
                17,
                28,
                110,
                111,
                127,
                128,
                129,
                136,
                144,
                200,
                u32::MAX,
            ] {
                let mut body = vec![0u8; len];
                let at = if to == 1029 { 12 } else { 4 };
                if let Some(place) = body.get_mut(at..at + 4) {
                    place.copy_from_slice(&addr_len.to_le_bytes());
                }
                vm.send_datagram(9000, to, &body);
            }
        }
    }
    vm.settle();
    // One slot for each reply port: the last request's answer is there, and the device goes on.
    assert_eq!(vm.connect(7000, free_port()), -111);
}

/// vm-virtio issue 204, cloud-hypervisor issue 5691, libkrun issue 535: one descriptor, two, many, and every cut.
#[test]
fn line_16_packets_cut_anywhere_arrive_whole() {
    let (mut vm, port, mut host) = open();
    let data = pattern(100);
    for cut in 0..=144 {
        let bytes = vm.stream(port).data_packet(&data).to_bytes();
        vm.peer.send_cut(&bytes, &[cut]);
        vm.turn();
        assert!(read_exact(&mut host, 100) == data, "{cut}");
    }
    let bytes = vm.stream(port).data_packet(&data).to_bytes();
    vm.peer.send_cut(&bytes, &(1..144).collect::<Vec<_>>());
    vm.turn();
    assert!(read_exact(&mut host, 100) == data, "one byte a descriptor");
}

/// CVE-2026-23069: a buffer that shrinks below what is in flight is no credit, not four gigabytes of it.
#[test]
fn line_17_buffer_that_shrinks_below_what_is_in_flight_stops_the_stream() {
    let (mut vm, port, mut host) = open();
    host.write_all(&pattern(50_000)).unwrap();
    vm.wait("50,000 bytes", |vm| (vm.stream(port).unread() == 50_000).then_some(()));
    vm.stream(port).buf_alloc = 10_000;
    let shrunk = vm.stream(port).packet(6);
    vm.send(&shrunk);
    host.write_all(b"more").unwrap();
    vm.settle();
    assert_eq!(vm.stream(port).unread(), 50_000);
    assert!(vm.read(port, 50_000) == pattern(50_000));
    assert_eq!(vm.read(port, 4), b"more");
}

/// libkrun issue 772 (240 KB, then nothing) in both directions at once.
#[test]
fn line_17_streams_both_ways_at_once_do_not_stop() {
    let (mut vm, port, mut host) = open();
    let data = pattern(2 << 20);
    let echo = std::thread::spawn(move || {
        let mut buf = vec![0; 30_000];
        let mut total = 0;
        while total < 2 << 20 {
            let len = host.read(&mut buf).unwrap();
            host.write_all(&buf[..len]).unwrap();
            total += len;
        }
        host
    });
    let (mut sent, mut got) = (0, Vec::new());
    vm.wait("the echo", |vm| {
        while sent < data.len() && vm.peer.can_send() {
            let room = vm.stream(port).room().min(data.len() - sent).min(65536);
            if room == 0 {
                break;
            }
            let packet = vm.stream(port).data_packet(&data[sent..sent + room]);
            vm.peer.send(&packet);
            sent += room;
        }
        got.extend(vm.take(port, usize::MAX));
        (got.len() == data.len()).then_some(())
    });
    echo.join().unwrap();
    assert!(got == data);
}

/// mvm F2: a guest that opens connections from port after port.
#[test]
fn line_18_flood_of_connections_is_capped_and_refused_by_reset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let limits = Limits {
        proxies: 20,
        ..Limits::default()
    };
    let mut vm = Vm::new(VsockConfig {
        routes: vec![Route::Connect { port: 52, path }],
        limits,
        ..inet_config()
    });
    for port in 1000..1050 {
        vm.streams.insert((port, 52), GuestStream::connecting(port, 52));
        vm.send(&GuestStream::connecting(port, 52).packet(1));
        vm.turn();
        let _ = listener.set_nonblocking(true);
        drop(listener.accept());
    }
    vm.settle();
    let refused = vm.streams.values().filter(|stream| stream.is_reset()).count();
    assert!(vm.handler.muxer().len() <= 20);
    assert!(refused >= 30, "{refused}");
}

/// CVE-2026-46214: refused connections were counted against the accept queue for ever.
#[test]
fn line_18_refused_connections_leave_the_accept_queue() {
    let at = free_port();
    let mut vm = Vm::new(VsockConfig {
        port_map: [(80, at)].into(),
        ..inet_config()
    });
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.request_result(1029, &listen_body(port, port, 1, &wildcard(80))), 0);
    for _ in 0..10 {
        let client = TcpStream::connect(at).unwrap();
        let request = vm.wait("REQUEST", |vm| vm.strays.pop());
        vm.send(&GuestStream::connecting(port, request.src_port).packet(3));
        vm.turn();
        drop(client);
    }
    assert_eq!(vm.handler.muxer().len(), 1);
}

/// cloud-hypervisor PR 8612: a port was released by a message of somebody who did not own it.
#[test]
fn line_18_key_is_released_only_by_its_own_release() {
    let (mut vm, port, _host) = open();
    vm.release(port, 621);
    vm.release(port + 1, 620);
    vm.settle();
    vm.write(port, b"still open");
    assert!(vm.stream(port).is_open());
}

/// cloud-hypervisor issues 6621, 6798: a client that closes before its line ended the monitor.
#[test]
fn line_19_client_that_closes_before_its_line_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let mut vm = Vm::new(VsockConfig {
        routes: vec![Route::Multiplex { path: path.clone() }],
        ..VsockConfig::default()
    });
    for line in [&b""[..], b"CONNECT 80"] {
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        client.write_all(line).unwrap();
        vm.settle();
        drop(client);
        vm.settle();
        assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 1));
    }
}

/// Firecracker 6031, libkrun issues 294 and 344: an event that nobody clears.
#[test]
fn line_20_hosts_that_hang_up_while_the_guest_is_paused_let_the_event_loop_sleep() {
    let (mut vm, port, mut host) = open();
    vm.peer.repost = false;
    host.write_all(&pattern(1 << 20)).unwrap();
    vm.settle();
    vm.shutdown(port, 2);
    vm.settle();
    drop(host);
    vm.settle();
    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(vm.watcher.events, before);
    vm.peer.repost = true;
    vm.peer.repost_rx();
    assert!(vm.read(port, 1 << 20) == pattern(1 << 20), "and nothing was lost");
}

#[test]
fn line_20_refused_connects_leave_nothing_that_reports() {
    let mut vm = Vm::new(inet_config());
    for _ in 0..50 {
        let port = vm.fresh_port();
        vm.create(port, 2, 1);
        assert_eq!(vm.connect(port, free_port()), -111);
        vm.release(port, 620);
    }
    vm.settle();
    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(
        (vm.watcher.events, vm.watcher.watched(), vm.handler.muxer().len()),
        (before, 0, 0)
    );
}

/// A3S-Lab/Box issue 371, boxlite PR 454, libkrun issue 818.
#[test]
fn line_21_nothing_of_the_guest_appears_on_the_host_unasked() {
    let mut vm = Vm::new(inet_config());
    let free = free_port().port();
    for at in [wildcard(0), wildcard(80), wildcard(free)] {
        let port = vm.fresh_port();
        vm.create(port, 2, 1);
        // EPERM: the guest listens on its own stack, where bind(0) tells the port that it got.
        assert_eq!(vm.request_result(1029, &listen_body(port, port, 5, &at)), -1);
    }
    assert_eq!(vm.watcher.watched(), 0);
    assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, free)).is_ok());
}

/// libkrun issue 841: datagrams with op 3 come at intervals.
#[test]
fn line_21_datagrams_with_another_operation_are_tolerated() {
    let (mut vm, port, _host) = open();
    for _ in 0..100 {
        vm.send(&VsockPacket {
            kind: 3,
            dst_port: 1024,
            ..GuestStream::connecting(port, 1024).packet(3)
        });
    }
    vm.settle();
    assert!(vm.stream(port).is_open() && vm.datagrams.is_empty() && vm.strays.is_empty());
}

/// Firecracker 6100, 5958, 5882: receive dead after a reset, chains in flight, events before the driver is back.
#[test]
fn line_22_device_works_again_after_each_of_many_resets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut vm = Vm::new(inet_config());
    for round in 0..10 {
        let port = vm.open_tcp(to);
        let mut host = listener.accept().unwrap().0;
        host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        host.write_all(b"hello").unwrap();
        assert_eq!(vm.read(port, 5), b"hello", "round {round}");
        // In flight both ways, an undecided ACCEPT, a datagram socket.
        host.write_all(&pattern(100_000)).unwrap();
        vm.peer.repost = false;
        vm.create(7000, 2, 2);
        vm.send_datagram(7100, 1027, &connect_body(7000, &sockaddr(to)));
        vm.turn();
        let packet = vm.stream(port).data_packet(b"not taken");
        vm.peer.send(&packet);
        vm.reset();
        assert!(
            matches!(host.read(&mut [0; 64]), Ok(0) | Err(_)),
            "the host sees the end"
        );
        assert_eq!(vm.handler.muxer().len(), 0);
    }
}

#[test]
fn line_22_transport_reset_waits_for_a_buffer_and_is_sent_once() {
    let mut vm = Vm::new(inet_config());
    vm.handler.transport_reset();
    vm.settle();
    assert!(vm.peer.events().is_empty());
    vm.peer.post_event(4);
    vm.peer.post_event(4);
    vm.settle();
    assert_eq!(vm.peer.events(), [vec![0; 4]]);
}

/// libkrun issue 112 and others: descriptors and keys left behind.
#[test]
fn three_hundred_connections_one_after_another_leave_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut vm = Vm::new(inet_config());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..300 {
        let port = vm.open_tcp(to);
        let mut host = listener.accept().unwrap().0;
        vm.write(port, b"x");
        vm.turn();
        host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(read_exact(&mut host, 1), b"x");
        vm.close(port);
        vm.wait_reset(port);
        vm.streams.clear();
        vm.send_datagram(9000, 1024, &create_body(port, 2, 2));
        vm.send_datagram(9000, 1027, &connect_body(port, &sockaddr(udp.local_addr().unwrap())));
        vm.release(port, 620);
        vm.turn();
    }
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}
