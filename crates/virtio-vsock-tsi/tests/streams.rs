//! TSI streams to the host, with real sockets.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{Vm, connect_body, connected, getname_body, inet_config, pattern, sockaddr};
use virtio_vsock_tsi::vsock_proto::policy::Policy;

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn stream_echoes_both_ways() {
    let (mut vm, port, mut host) = connected();

    vm.write(port, b"ping");
    vm.turn();
    let mut buf = [0; 4];
    host.read_exact(&mut buf).unwrap();
    host.write_all(b"pong!").unwrap();

    assert_eq!(&buf, b"ping");
    assert_eq!(vm.read(port, 5), b"pong!");
}

#[test]
fn getpeername_tells_the_hosts_name_and_getsockname_of_zero_the_own() {
    let (mut vm, port, host) = connected();

    let peer = vm.request(1026, &getname_body(port, 620, 1));
    let own = vm.request(1026, &getname_body(port, 620, 0));

    assert_eq!(peer[..8], [0, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(peer[8..24], sockaddr(host.local_addr().unwrap()));
    assert_eq!(own[8..24], sockaddr(host.peer_addr().unwrap()));
    assert!(peer[24..].iter().all(|&byte| byte == 0));
}

#[test]
fn upload_larger_than_every_window_arrives_whole() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(8 << 20);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        host.read_to_end(&mut got).unwrap();
        got
    });

    vm.write(port, &data);
    vm.close(port);
    vm.wait_reset(port);

    assert!(reader.join().unwrap() == data);
}

#[test]
fn upload_to_a_host_that_does_not_read_stops_at_the_window_and_goes_on() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(16 << 20);
    let sent = vm.send_until_the_host_is_full(port, &data);
    assert!(sent < data.len(), "the host's buffers cannot be that large");
    vm.turn_later();
    assert_eq!(vm.peer.tx_in_flight(), 0, "transmit buffers never wait for the host");

    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        host.read_to_end(&mut got).unwrap();
        got
    });
    vm.write(port, &data[sent..]);
    vm.close(port);
    vm.wait_reset(port);

    assert!(reader.join().unwrap() == data);
}

#[test]
fn download_to_a_guest_that_reads_slowly_arrives_whole() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(4 << 20);
    let sent = data.clone();
    let writer = std::thread::spawn(move || {
        host.write_all(&sent).unwrap();
        drop(host);
    });

    let mut got = Vec::new();
    vm.wait("the download", |vm| {
        // Fewer bytes than come, and not each time.
        got.extend(vm.take(port, 30_000));
        vm.stream(port).peer_finished().then_some(())
    });

    writer.join().unwrap();
    assert!(got == data);
    assert!(vm.stat("credit_stalls") > 0);
}

/// The host's program read an orderly end in the middle of what the guest had sent.
#[test]
fn stream_that_the_event_loop_drops_with_bytes_to_write_ends_with_a_reset() {
    let (mut vm, port, mut host) = connected();
    vm.watcher.refuse = true;
    vm.send_until_the_host_is_full(port, &pattern(8 << 20));
    vm.watcher.refuse = false;
    vm.turn();
    common::with_timeout(&host);
    let end = std::io::copy(&mut host, &mut std::io::sink()).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

/// gominimal issue 869: a guest's kernel refuses packets beyond a count, whatever their size.
#[test]
fn many_small_writes_to_a_guest_that_does_not_read_stay_below_its_packet_bound() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(150_000);
    for chunk in data.chunks(100) {
        host.write_all(chunk).unwrap();
        vm.turn();
    }
    drop(host);

    assert!(vm.stream(port).packets.iter().filter(|(op, _)| *op == 5).count() <= 262_144 / 576 - 32);
    assert!(vm.read(port, data.len()) == data);
    vm.wait_eof(port);
}

#[test]
fn packet_of_64_kib_in_any_pieces_arrives_whole() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(65536);
    for cuts in [
        vec![],
        vec![44],
        vec![10, 44, 45],
        (1..44).collect(),
        (1..18).map(|n| n * 3800).collect(),
    ] {
        let bytes = vm.stream(port).data_packet(&data).to_bytes();
        vm.peer.send_cut(&bytes, &cuts);
        let mut got = vec![0; data.len()];
        host.set_nonblocking(true).unwrap();
        let mut len = 0;
        vm.wait("64 KiB", |_| {
            len += host.read(&mut got[len..]).unwrap_or(0);
            (len == data.len()).then_some(())
        });
        assert!(got == data, "{cuts:?}");
    }
}

#[test]
fn chain_longer_than_its_packet_passes_only_the_packet_on() {
    let (mut vm, port, mut host) = connected();
    let mut bytes = vm.stream(port).data_packet(b"abc").to_bytes();
    bytes.extend(b"garbage");
    vm.peer.send_cut(&bytes, &[44]);
    vm.turn();
    vm.write(port, b"def");
    vm.turn();

    let mut got = [0; 6];
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abcdef");
}

#[test]
fn host_that_sends_and_closes_at_once_is_read_to_its_end() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(150_000);
    let sent = data.clone();
    std::thread::spawn(move || host.write_all(&sent).unwrap());

    assert!(vm.read(port, data.len()) == data);
    vm.wait_eof(port);
    assert!(!vm.stream(port).is_reset(), "half-closed, not reset");
}

/// Between the host's connect and the guest's REQUEST nothing may be said, and nothing may be lost.
#[test]
fn host_that_sends_and_closes_before_the_guest_opens_its_side_is_read_to_its_end() {
    let listener = listener();
    let mut vm = Vm::new(inet_config());
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, listener.local_addr().unwrap()), 0);
    let (mut host, _) = listener.accept().unwrap();
    host.write_all(b"banner").unwrap();
    drop(host);
    vm.settle();
    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(vm.watcher.events, before, "the event loop sleeps meanwhile");
    vm.open_stream(port, 620);
    assert_eq!(vm.read(port, 6), b"banner");
    vm.wait_eof(port);
}

#[test]
fn guest_writes_after_the_host_has_half_closed() {
    let (mut vm, port, mut host) = connected();
    host.shutdown(std::net::Shutdown::Write).unwrap();
    vm.wait_eof(port);
    assert_eq!(vm.stream(port).peer_shutdown(), 2);

    vm.write(port, b"still here");
    vm.close(port);
    vm.wait_reset(port);

    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"still here");
}

#[test]
fn host_answers_after_the_guest_has_half_closed() {
    let (mut vm, port, mut host) = connected();
    vm.write(port, b"request");
    vm.shutdown(port, 2);
    vm.turn();

    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    host.write_all(b"answer").unwrap();
    drop(host);

    assert_eq!(got, b"request");
    assert_eq!(vm.read(port, 6), b"answer");
    vm.wait_eof(port);
}

#[test]
fn shutdown_with_pending_bytes_flushes_then_resets() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(200_000);
    // More than the socket takes while nobody reads, so that some of it waits with us.
    let mut total: Vec<u8> = Vec::new();
    for _ in 0..1000 {
        let room = vm.stream(port).room().min(65536);
        if room == 0 {
            break;
        }
        let packet = vm.stream(port).data_packet(&data[..room]);
        total.extend(&data[..room]);
        vm.send(&packet);
        vm.turn();
    }
    vm.close(port);
    vm.settle();
    assert!(!vm.stream(port).is_reset(), "bytes are still to be passed on");

    host.set_nonblocking(true).unwrap();
    let (mut got, mut buf) = (Vec::<u8>::new(), vec![0u8; 65536]);
    vm.wait("all bytes", |_| {
        loop {
            match host.read(&mut buf) {
                Ok(0) => return Some(()),
                Ok(len) => got.extend(&buf[..len]),
                Err(_) => return None,
            }
        }
    });
    vm.wait_reset(port);
    assert!(got == total);
}

/// What a host reads that was slow to begin with: all, then the end.
fn read_all(vm: &mut Vm, host: &mut TcpStream) -> Vec<u8> {
    host.set_nonblocking(true).unwrap();
    let (mut got, mut buf) = (Vec::new(), vec![0; 65536]);
    vm.wait("the end of what the guest sent", |_| {
        loop {
            match host.read(&mut buf) {
                Ok(0) => return Some(()),
                Ok(len) => got.extend(&buf[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(error) => panic!("after {} bytes: {error}", got.len()),
            }
        }
    });
    got
}

/// Linux waits for the answer to its close for 8 seconds and then resets. The host's client saw a reset instead of the
/// last bytes.
#[test]
fn what_the_guest_sent_last_arrives_though_its_kernel_gave_up_waiting() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(16 << 20);
    let sent = vm.send_until_the_host_is_full(port, &data);
    vm.close(port);
    vm.settle();
    vm.now += Duration::from_secs(8);
    let reset = vm.stream(port).packet(3);
    vm.send(&reset);
    vm.settle();
    vm.streams.clear();

    assert!(read_all(&mut vm, &mut host) == data[..sent]);
    assert!(vm.strays.is_empty(), "RST is not answered");
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

#[test]
fn what_the_guest_sent_last_arrives_though_its_port_is_used_again() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(16 << 20);
    let sent = vm.send_until_the_host_is_full(port, &data);
    vm.close(port);
    vm.settle();
    vm.streams.clear();
    let listener = listener();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, listener.local_addr().unwrap()), 0);
    vm.open_stream(port, 620);
    let (mut other, _) = listener.accept().unwrap();

    vm.write(port, b"another");
    assert!(read_all(&mut vm, &mut host) == data[..sent]);
    vm.close(port);
    vm.wait_reset(port);
    assert_eq!(read_all(&mut vm, &mut other), b"another");
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

/// The host saw an orderly end, as if it had everything.
#[test]
fn reset_of_the_device_with_bytes_left_is_a_reset_to_the_host() {
    let (mut vm, port, mut host) = connected();
    let sent = vm.send_until_the_host_is_full(port, &pattern(16 << 20));
    vm.reset();

    let (mut got, mut buf) = (0, vec![0; 65536]);
    let end = loop {
        match host.read(&mut buf) {
            Ok(0) => break None,
            Ok(len) => got += len,
            Err(error) => break Some(error.kind()),
        }
    };
    assert!(got < sent);
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn host_that_resets_is_told_to_the_guest_by_rst() {
    let (mut vm, port, host) = connected();
    rustix::net::sockopt::set_socket_linger(&host, Some(Duration::ZERO)).unwrap();
    drop(host);
    vm.wait_reset(port);
    vm.settle();
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

#[test]
fn guest_that_resets_closes_the_host_socket() {
    let (mut vm, port, mut host) = connected();
    let packet = vm.stream(port).packet(3);
    vm.send(&packet);
    vm.turn();

    assert_eq!(host.read(&mut [0; 8]).unwrap_or(0), 0);
    vm.settle();
    assert!(vm.strays.is_empty(), "RST is not answered");
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

#[test]
fn guest_close_tells_the_host_at_once_and_leaves_nothing_behind() {
    let (mut vm, port, mut host) = connected();
    vm.write(port, b"bye");
    vm.close(port);
    vm.wait_reset(port);

    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"bye");
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

#[test]
fn connect_refused_is_told_with_its_errno() {
    let to = listener().local_addr().unwrap();
    let mut vm = Vm::new(inet_config());
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, to), -111);
    // The socket can be used again, as a failed one of the host's could not.
    let listener = listener();
    assert_eq!(vm.connect(port, listener.local_addr().unwrap()), 0);
}

/// A program that waits for a server of its own tries again after ECONNREFUSED, and gave up at EACCES.
#[test]
fn connect_to_what_the_policy_denies_is_refused_and_nothing_is_sent() {
    let listener = listener();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let rule = at.to_string().parse().unwrap();
    for (policy, errno) in [(Policy::default(), -111), (Policy::new(Vec::new(), vec![rule]), -13)] {
        let mut vm = Vm::new(virtio_vsock_tsi::VsockConfig {
            policy,
            ..inet_config()
        });
        let port = vm.fresh_port();
        vm.create(port, 2, 1);
        assert_eq!(vm.connect(port, at), errno);
        assert!(listener.accept().is_err());
        assert_eq!(vm.stat("denied"), 1);
    }
}

#[test]
fn connect_without_create_is_refused_and_with_malformed_address_is_einval() {
    let mut vm = Vm::new(inet_config());
    let listener = listener();
    let to = listener.local_addr().unwrap();
    assert_eq!(vm.connect(4711, to), -111);
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.request_result(1025, &connect_body(port, &sockaddr(to)[..15])), -22);
    assert_eq!(
        vm.request_result(1025, &connect_body(port, &sockaddr("[::1]:80".parse().unwrap()))),
        -22
    );
    assert_eq!(vm.request_result(1025, &[1, 2, 3]), -22);
}

#[test]
fn ipv6_stream_echoes_and_tells_its_name() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return eprintln!("no IPv6 on this host");
    };
    let mut vm = Vm::new(inet_config());
    let to = listener.local_addr().unwrap();
    let port = vm.open_tcp(to);
    let (mut host, _) = listener.accept().unwrap();
    host.write_all(b"six").unwrap();
    assert_eq!(vm.read(port, 3), b"six");
    let name = vm.request(1026, &getname_body(port, 620, 1));
    assert_eq!(name[4..8], [28, 0, 0, 0]);
    assert_eq!(name[8..36], sockaddr(to));
}

#[test]
fn connection_under_load_needs_three_event_loop_calls_in_its_life() {
    let (mut vm, port, mut host) = connected();
    for _ in 0..100 {
        host.write_all(b"some words").unwrap();
        assert_eq!(vm.read(port, 10), b"some words");
    }
    vm.close(port);
    vm.wait_reset(port);
    assert!(vm.watcher.calls <= 3, "{} calls", vm.watcher.calls);
}

/// libkrun issue 344, Firecracker 6031: level-triggered input with nowhere to put it.
#[test]
fn busy_hosts_and_a_paused_guest_let_the_event_loop_sleep() {
    let listener = listener();
    let mut vm = Vm::new(inet_config());
    let mut hosts = Vec::new();
    for _ in 0..100 {
        let port = vm.open_tcp(listener.local_addr().unwrap());
        hosts.push((port, listener.accept().unwrap().0));
    }
    vm.peer.repost = false;
    for (_, host) in &mut hosts {
        host.write_all(&pattern(20_000)).unwrap();
    }
    vm.settle();
    vm.settle();

    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(
        vm.watcher.events, before,
        "nothing is reported while the guest has no buffers"
    );

    vm.peer.repost = true;
    vm.peer.repost_rx();
    for (port, _) in &hosts {
        assert!(vm.read(*port, 20_000) == pattern(20_000));
    }
}

#[test]
fn what_the_guest_sent_last_arrives_when_the_machine_ends() {
    let (mut vm, port, mut host) = connected();
    let data = pattern(16 << 20);
    let sent = vm.send_until_the_host_is_full(port, &data);
    // Still in the ring when the machine ends.
    let last = vm.stream(port).data_packet(b"last words");
    vm.peer.send(&last);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        host.read_to_end(&mut got).unwrap();
        got
    });

    let now = vm.now;
    let mem = vm.peer.guest().shared_mem();
    vm.handler
        .finish(now, Duration::from_secs(20), &mut vm.queues, &*mem)
        .unwrap();
    vm.handler.reset();

    let got = reader.join().unwrap();
    assert!(got[..sent] == data[..sent] && &got[sent..] == b"last words");
}

/// Bytes that the guest never read must not turn the end into a reset, which would take the last words with it.
#[test]
fn what_the_guest_sent_last_arrives_though_it_left_bytes_unread() {
    let (mut vm, port, mut host) = connected();
    vm.peer.repost = false;
    host.write_all(&pattern(1 << 20)).unwrap();
    vm.settle();
    let last = vm.stream(port).data_packet(b"last words");
    vm.peer.send(&last);

    let now = vm.now;
    let mem = vm.peer.guest().shared_mem();
    vm.handler
        .finish(now, Duration::from_secs(20), &mut vm.queues, &*mem)
        .unwrap();
    vm.handler.reset();

    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last words");
}

#[test]
fn end_of_the_machine_does_not_wait_for_a_host_that_never_reads() {
    let (mut vm, port, host) = connected();
    vm.send_until_the_host_is_full(port, &pattern(16 << 20));

    let now = vm.now;
    let mem = vm.peer.guest().shared_mem();
    vm.handler.finish(now, Duration::ZERO, &mut vm.queues, &*mem).unwrap();

    drop(host);
    // Its peer is gone: there is nobody to wait for, however long that may take.
    vm.handler
        .finish(now, Duration::MAX / 4, &mut vm.queues, &*mem)
        .unwrap();
}
