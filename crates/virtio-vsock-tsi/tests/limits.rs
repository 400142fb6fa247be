//! Bounds on what a guest can make the host hold or do.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Loop, Vm, connect_body, create_body, inet_config, listen_body, queues, sockaddr};
use test_guest::{VsockPacket, VsockPeer};
use virtio_vsock_tsi::vsock_proto::policy::{Hook, Operation, Question, Verdict};
use virtio_vsock_tsi::vsock_proto::wire::{Family, SocketName};
use virtio_vsock_tsi::vsock_proto::{Config, Errno, Muxer};
use virtio_vsock_tsi::{Backend, Cid, Connection, Handler, Limits, Listener, Peer, Route, TsiFlags, VsockConfig};

fn with_limits(limits: Limits) -> VsockConfig {
    VsockConfig {
        limits,
        ..inet_config()
    }
}

#[test]
fn connects_beyond_the_rate_are_enobufs_until_time_has_passed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut vm = Vm::new(with_limits(Limits {
        connects_per_second: 2,
        ..Limits::default()
    }));
    let connect = |vm: &mut Vm| {
        let port = vm.fresh_port();
        vm.create(port, 2, 1);
        vm.connect(port, to)
    };
    assert_eq!([connect(&mut vm), connect(&mut vm), connect(&mut vm)], [0, 0, -105]);
    vm.now += Duration::from_millis(500);
    assert_eq!([connect(&mut vm), connect(&mut vm)], [0, -105]);
}

/// Windows are promises, so they are handed out such that all of them together can be kept.
#[test]
fn windows_shrink_as_streams_open_and_their_sum_stays_within_the_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let limits = Limits {
        buffered_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut vm = Vm::new(with_limits(limits));
    let mut windows = Vec::new();
    let refused = loop {
        let port = vm.fresh_port();
        vm.create(port, 2, 1);
        assert_eq!(vm.connect(port, to), 0);
        vm.streams
            .insert((port, 620), common::GuestStream::connecting(port, 620));
        let request = vm.stream(port).packet(1);
        vm.send(&request);
        vm.settle();
        if vm.stream(port).is_reset() {
            break port;
        }
        windows.push(vm.stream(port).peer_buf_alloc);
    };
    assert!(windows.iter().sum::<u32>() <= 1 << 20, "{windows:?}");
    assert!(windows.is_sorted_by(|a, b| a >= b) && windows.iter().all(|&window| window >= 16 << 10));
    assert!(windows.len() > 20);

    let first = *vm.streams.keys().find(|(port, _)| *port != refused).unwrap();
    vm.close(first.0);
    vm.wait_reset(first.0);
    let again = vm.open_tcp(to);
    assert!(vm.stream(again).is_open(), "a closed stream's window can be had again");
}

#[test]
fn listeners_beyond_the_limit_are_emfile_and_closed_ones_do_not_count() {
    let map = (1..=3u16).map(|port| {
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (port, at)
    });
    let limits = Limits {
        listeners: 1,
        ..Limits::default()
    };
    let mut vm = Vm::new(VsockConfig {
        port_map: map.collect(),
        ..with_limits(limits)
    });
    let listen = |vm: &mut Vm, tcp: u16| {
        let port = vm.fresh_port();
        vm.create(port, 2, 1);
        let at = sockaddr(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), tcp));
        (port, vm.request_result(1029, &listen_body(port, port, 5, &at)))
    };
    let (first, result) = listen(&mut vm, 1);
    assert_eq!(result, 0);
    assert_eq!(listen(&mut vm, 2).1, -24);
    assert_eq!(vm.stat("listeners_refused"), 1);
    vm.release(first, 620);
    assert_eq!(listen(&mut vm, 3).1, 0);
}

#[test]
fn listener_that_found_no_room_accepts_when_another_connection_ends() {
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = Limits {
        proxies: 2,
        ..Limits::default()
    };
    let mut vm = Vm::new(VsockConfig {
        port_map: [(80, at)].into(),
        ..with_limits(limits)
    });
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    vm.listening.push(port);
    let any = sockaddr(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80));
    assert_eq!(vm.request_result(1029, &listen_body(port, port, 5, &any)), 0);
    let out = vm.open_tcp(other.local_addr().unwrap());
    let _client = TcpStream::connect(at).unwrap();
    vm.settle();
    assert_eq!(vm.streams.len(), 1);
    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(vm.watcher.events, before, "the listener sleeps meanwhile");

    vm.close(out);
    vm.wait("the client", |vm| (vm.streams.len() == 2).then_some(()));
}

#[test]
fn event_loop_that_takes_no_more_sockets_is_an_error_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    vm.watcher.refuse = true;
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, listener.local_addr().unwrap()), 0, "it stands at once");
    vm.streams
        .insert((port, 620), common::GuestStream::connecting(port, 620));
    let request = vm.streams[&(port, 620)].packet(1);
    vm.send(&request);
    vm.wait_reset(port);
    vm.watcher.refuse = false;
    vm.open_tcp(listener.local_addr().unwrap());
}

/// It was told that it listens, and whoever waited at it waited for ever.
#[test]
fn listener_that_the_event_loop_does_not_take_is_closed() {
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut vm = Vm::new(VsockConfig {
        port_map: [(80, at)].into(),
        ..inet_config()
    });
    vm.watcher.refuse = true;
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    let body = listen_body(port, port, 5, &sockaddr("0.0.0.0:80".parse().unwrap()));
    vm.request_result(1029, &body);
    let accept = [port.to_le_bytes(), 0u32.to_le_bytes()].concat();
    assert!(vm.request_result(1030, &accept) < 0);
    assert_eq!(vm.stat("listeners_refused"), 1);
    TcpListener::bind(at).expect("the port is free");
}

#[test]
fn guest_that_never_opens_its_side_loses_the_connection_after_a_minute() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, listener.local_addr().unwrap()), 0);
    vm.now += Duration::from_secs(61);
    vm.turn();
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
    assert_eq!(vm.stat("connections_refused"), 1);
}

#[test]
fn connection_that_the_guest_gives_up_is_no_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, listener.local_addr().unwrap()), 0);
    vm.release(port, 620);
    vm.turn();
    assert_eq!((vm.handler.muxer().len(), vm.stat("connections_refused")), (0, 0));
}

#[test]
fn connects_beyond_the_rate_are_counted_as_refused_but_those_of_datagram_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut vm = Vm::new(with_limits(Limits {
        connects_per_second: 1,
        ..Limits::default()
    }));
    for (kind, result) in [(1, 0), (1, -105), (2, -105)] {
        let port = vm.fresh_port();
        vm.create(port, 2, kind);
        assert_eq!(vm.connect(port, to), result);
    }
    assert_eq!((vm.stat("connections_refused"), vm.stat("over_limit")), (1, 2));
}

#[test]
fn host_client_that_a_full_table_turns_away_is_counted_as_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let limits = Limits {
        proxies: 1,
        ..Limits::default()
    };
    let mut vm = Vm::new(VsockConfig {
        routes: vec![Route::Listen {
            port: 80,
            path: path.clone(),
        }],
        ..with_limits(limits)
    });
    vm.listening.push(80);
    let _clients = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
    vm.settle();
    assert_eq!((vm.stat("connections"), vm.stat("connections_refused")), (1, 1));
}

#[test]
fn stream_that_the_host_does_not_drain_after_the_guest_closed_is_aborted_after_10_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    let port = vm.open_tcp(listener.local_addr().unwrap());
    let (host, _) = listener.accept().unwrap();
    let mut idle = 0;
    while idle < 20 {
        idle += 1;
        let room = vm.stream(port).room().min(65536);
        if room > 0 && vm.peer.can_send() {
            let packet = vm.stream(port).data_packet(&vec![7; room]);
            vm.peer.send(&packet);
            idle = 0;
        }
        vm.turn();
    }
    vm.close(port);
    vm.settle();
    assert!(!vm.stream(port).is_reset());
    vm.now += Duration::from_secs(11);
    vm.turn();
    vm.wait_reset(port);
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
    drop::<TcpStream>(host);
}

/// Sends everybody to one place, and refuses port 1.
struct Redirect(SocketAddr);

impl Hook for Redirect {
    fn judge(&mut self, question: &Question<'_>) -> Verdict {
        match (question.operation, question.name.inet()) {
            (Operation::Connect, Some(to)) if to.port() == 1 => Verdict::Deny(Errno::ENETUNREACH),
            (Operation::Connect, Some(_)) => Verdict::Rewrite(SocketName::Inet(self.0)),
            _ => Verdict::Allow,
        }
    }
}

#[test]
fn hook_rewrites_and_denies_destinations() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = Some(Box::new(Redirect(listener.local_addr().unwrap())) as Box<dyn Hook>);
    let mut vm = Vm::new(VsockConfig {
        hook,
        policy: Default::default(),
        ..inet_config()
    });
    let port = vm.open_tcp("192.0.2.1:443".parse().unwrap());
    listener.accept().unwrap();
    assert!(vm.stream(port).is_open());
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, "192.0.2.1:1".parse().unwrap()), -101);
    assert_eq!(
        vm.connect(port, "127.0.0.1:443".parse().unwrap()),
        -111,
        "the policy comes first"
    );
}

/// Sends every datagram to one place.
struct Relay(SocketAddr);

impl Hook for Relay {
    fn judge(&mut self, question: &Question<'_>) -> Verdict {
        match question.operation {
            Operation::Send => Verdict::Rewrite(SocketName::Inet(self.0)),
            _ => Verdict::Allow,
        }
    }
}

/// Its answers were a stranger's, for the host's kernel names an IPv4 peer of an IPv6 socket in IPv6.
#[test]
fn datagrams_that_a_hook_sends_elsewhere_are_answered_from_there() {
    let host = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for (family, to) in [(2, "192.0.2.1:53"), (10, "[::ffff:192.0.2.1]:53")] {
        let hook = Some(Box::new(Relay(host.local_addr().unwrap())) as Box<dyn Hook>);
        let mut vm = Vm::new(VsockConfig { hook, ..inet_config() });
        let port = vm.fresh_port();
        vm.create(port, family, 2);
        let reply_port = vm.fresh_port();
        let body = connect_body(port, &sockaddr(to.parse().unwrap()));
        vm.send_datagram(reply_port, 1027, &body);
        vm.send_datagram(port, 1028, b"question");
        vm.turn();
        let (_, from) = host.recv_from(&mut [0; 16]).unwrap();
        host.send_to(b"answer", from).unwrap();
        assert_eq!(vm.datagram_to(port), b"answer", "{to}");
    }
}

#[test]
fn time_is_sent_as_8_bytes_to_its_port() {
    let mut vm = Vm::new(VsockConfig::default());
    vm.handler.send_time(0x0102_0304_0506_0708);
    vm.turn();
    let packet = vm.datagrams.pop().unwrap();
    assert_eq!((packet.src_port, packet.dst_port), (123, 123));
    assert_eq!(packet.payload, [8, 7, 6, 5, 4, 3, 2, 1]);
}

/// A host on which nothing works: its listeners always have something to say, and never a client.
struct Barren;

impl Backend for Barren {
    fn connect(&mut self, _to: &SocketName) -> Result<Connection, Errno> {
        Err(Errno::ECONNREFUSED)
    }

    fn connect_route(&mut self, _port: u32) -> Result<Connection, Errno> {
        Err(Errno::ECONNREFUSED)
    }

    fn listen(&mut self, at: &SocketName, _backlog: u16) -> Result<Listener, Errno> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        Ok(Listener {
            socket: socket.into(),
            at: at.clone(),
            place: None,
        })
    }

    fn datagram(&mut self, _family: Family) -> Result<OwnedFd, Errno> {
        Err(Errno::EMFILE)
    }

    fn datagram_peer(&mut self, _name: &SocketName) -> Result<Peer, Errno> {
        Err(Errno::EACCES)
    }
}

/// The event loop reported it without a pause.
#[test]
fn listener_that_cannot_accept_for_any_reason_rests_between_its_attempts() {
    let mut config = Config::new(Cid::DEFAULT_GUEST);
    config.tsi = TsiFlags {
        inet: true,
        unix: false,
    };
    let at: SocketAddr = "127.0.0.1:80".parse().unwrap();
    config.publish.ports.insert(at.port(), at);
    let mut handler = Handler::new(Muxer::new(config), Barren);
    let (mut peer, mut watcher) = (VsockPeer::new(), Loop::new());
    let mut queues = queues(&peer);
    for (to, payload) in [
        (1024, create_body(5000, 2, 1)),
        (1029, listen_body(5000, 5000, 5, &sockaddr(at))),
    ] {
        peer.send(&VsockPacket {
            src_cid: 3,
            dst_cid: 2,
            src_port: 900,
            dst_port: to,
            kind: 3,
            op: 5,
            payload,
            ..VsockPacket::default()
        });
    }
    for _ in 0..10 {
        for (token, readiness) in watcher.wait(Duration::from_millis(1)) {
            handler.socket_ready(Duration::ZERO, token, readiness, &mut watcher);
        }
        let mem = peer.guest().shared_mem();
        handler.serve(Duration::ZERO, &mut queues, &*mem, &mut watcher).unwrap();
    }
    assert_eq!(watcher.events, 1, "reports without end");
    let again = Duration::from_millis(100);
    handler.deadline_passed(again, &mut watcher);
    let mem = peer.guest().shared_mem();
    handler.serve(again, &mut queues, &*mem, &mut watcher).unwrap();
    assert_eq!(watcher.wait(Duration::from_millis(1)).len(), 1, "it is tried again");
}
