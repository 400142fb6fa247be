//! TSI datagrams.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use common::{Vm, connect_body, getname_body, inet_config, pattern, sockaddr};
use virtio_vsock_tsi::VsockConfig;
use virtio_vsock_tsi::vsock_proto::policy::Policy;

fn host(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// `sendto(2)` in the guest.
fn send_to(vm: &mut Vm, port: u32, to: SocketAddr, data: &[u8]) {
    let reply_port = vm.fresh_port();
    vm.send_datagram(reply_port, 1027, &connect_body(port, &sockaddr(to)));
    vm.send_datagram(port, 1028, data);
    vm.turn();
}

fn socket(vm: &mut Vm, family: u16) -> u32 {
    let port = vm.fresh_port();
    vm.create(port, family, 2);
    port
}

fn receive(host: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buf = vec![0; 65536];
    let (len, from) = host.recv_from(&mut buf).unwrap();
    buf.truncate(len);
    (buf, from)
}

#[test]
fn datagrams_go_out_and_their_answers_of_every_length_come_back() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(probe) = UdpSocket::bind(at) else {
            eprintln!("no IPv6 on this host");
            continue;
        };
        drop(probe);
        let host = host(at);
        let to = host.local_addr().unwrap();
        let mut vm = Vm::new(inet_config());
        let port = socket(&mut vm, if to.is_ipv4() { 2 } else { 10 });
        for data in [&b"question"[..], b"", &pattern(30_000)] {
            send_to(&mut vm, port, to, data);
            let (got, from) = receive(&host);
            assert!(got == data);
            for len in [4, 3732, 0] {
                host.send_to(&pattern(len), from).unwrap();
                assert!(vm.datagram_to(port) == pattern(len), "{len}");
            }
        }
    }
}

#[test]
fn datagram_longer_than_the_guests_buffer_is_dropped_whole() {
    let host = host("127.0.0.1:0");
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), b"x");
    let (_, from) = receive(&host);
    host.send_to(&pattern(3733), from).unwrap();
    host.send_to(b"next", from).unwrap();
    assert_eq!(vm.datagram_to(port), b"next");
    assert_eq!(vm.stat("datagrams_too_long"), 1);
}

/// A socket is asked for one datagram a report where they come one at a time; a pass for each of many would be dear.
#[test]
fn flood_of_datagrams_comes_whole_and_in_order_with_few_reports() {
    let host = host("127.0.0.1:0");
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), b"x");
    let (_, from) = receive(&host);
    let before = vm.watcher.events;
    for n in 0..100u32 {
        host.send_to(&n.to_le_bytes(), from).unwrap();
    }
    for n in 0..100u32 {
        assert_eq!(vm.datagram_to(port), n.to_le_bytes());
    }
    assert!(vm.watcher.events - before < 20, "{}", vm.watcher.events - before);
}

/// What is left in a socket that was asked once is not forgotten when nothing else happens.
#[test]
fn second_of_two_datagrams_follows_without_anything_else() {
    let host = host("127.0.0.1:0");
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), b"x");
    let (_, from) = receive(&host);
    for round in 0..30u8 {
        host.send_to(&[round, 0], from).unwrap();
        host.send_to(&[round, 1], from).unwrap();
        assert_eq!(vm.datagram_to(port), [round, 0]);
        assert_eq!(vm.datagram_to(port), [round, 1]);
    }
}

#[test]
fn datagram_of_a_stranger_is_dropped() {
    let (host, stranger) = (host("127.0.0.1:0"), host("127.0.0.1:0"));
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), b"x");
    let (_, from) = receive(&host);
    stranger.send_to(b"surprise", from).unwrap();
    host.send_to(b"expected", from).unwrap();
    assert_eq!(vm.datagram_to(port), b"expected");
    assert_eq!(vm.stat("datagrams_unsolicited"), 1);
}

/// The host's kernel keeps what has come before it connects a socket.
/// The host answers from its loopback, which was taken for a stranger.
#[test]
fn answer_to_the_unspecified_address_arrives() {
    for (at, to) in [
        ("127.0.0.1:0", "0.0.0.0"),
        ("[::1]:0", "::"),
        ("127.0.0.1:0", "::ffff:0.0.0.0"),
    ] {
        let host = host(at);
        let mut vm = Vm::new(VsockConfig {
            policy: Policy::new(vec![to.parse().unwrap()], Vec::new()),
            ..inet_config()
        });
        let to = SocketAddr::new(to.parse().unwrap(), host.local_addr().unwrap().port());
        let port = socket(&mut vm, if to.is_ipv4() { 2 } else { 10 });
        send_to(&mut vm, port, to, b"question");
        host.send_to(b"answer", receive(&host).1).unwrap();
        assert_eq!(vm.datagram_to(port), b"answer", "{to}");
    }
}

/// The socket was taken for a good one: the guest waited for answers that nobody looked for.
#[test]
fn datagram_socket_that_the_event_loop_did_not_take_is_made_anew() {
    let host = host("127.0.0.1:0");
    let to = host.local_addr().unwrap();
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    vm.watcher.refuse = true;
    send_to(&mut vm, port, to, b"lost");
    vm.watcher.refuse = false;
    assert_eq!(vm.stat("datagrams_undeliverable"), 1);
    send_to(&mut vm, port, to, b"question");
    while {
        let (got, from) = receive(&host);
        host.send_to(b"answer", from).unwrap();
        got != b"question"
    } {}
    assert_eq!(vm.datagram_to(port), b"answer");
}

#[test]
fn datagram_of_a_stranger_from_before_a_connect_is_dropped() {
    let (host, stranger) = (host("127.0.0.1:0"), host("127.0.0.1:0"));
    let to = host.local_addr().unwrap();
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, to, b"x");
    let (_, from) = receive(&host);
    stranger.send_to(b"surprise", from).unwrap();
    host.send_to(b"answer", from).unwrap();
    let reply_port = vm.fresh_port();
    vm.send_datagram(reply_port, 1025, &connect_body(port, &sockaddr(to)));
    assert_eq!(vm.datagram_to(reply_port), [0; 4]);
    host.send_to(b"connected", from).unwrap();

    assert_eq!(vm.datagram_to(port), b"answer");
    assert_eq!(vm.datagram_to(port), b"connected");
    assert_eq!(vm.stat("datagrams_unsolicited"), 1);
}

#[test]
fn connected_datagrams_go_both_ways_and_tell_their_peer() {
    let host = host("127.0.0.1:0");
    let to = host.local_addr().unwrap();
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    assert_eq!(vm.connect(port, to), 0);
    vm.send_datagram(port, port, b"connected");
    vm.turn();
    let (got, from) = receive(&host);
    assert_eq!(got, b"connected");
    host.send_to(b"answer", from).unwrap();
    assert_eq!(vm.datagram_to(port), b"answer");
    assert_eq!(vm.request(1026, &getname_body(port, 620, 1))[8..24], sockaddr(to));
}

#[test]
fn datagrams_after_the_hosts_port_closed_do_no_harm() {
    let first = host("127.0.0.1:0");
    let to = first.local_addr().unwrap();
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    assert_eq!(vm.connect(port, to), 0);
    drop(first);
    vm.send_datagram(port, port, b"lost");
    vm.settle();
    let host = UdpSocket::bind(to).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    vm.send_datagram(port, port, b"found");
    vm.turn();
    assert_eq!(receive(&host).0, b"found");
}

#[test]
fn datagrams_that_the_policy_denies_go_nowhere() {
    let host = host("127.0.0.1:0");
    host.set_nonblocking(true).unwrap();
    let mut vm = Vm::new(VsockConfig {
        policy: Default::default(),
        ..inet_config()
    });
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), b"x");
    assert!(host.recv(&mut [0; 8]).is_err());
    assert_eq!((vm.stat("denied"), vm.stat("datagrams_undeliverable")), (1, 1));
}

/// What follows a refused destination must not go where the datagram before it went.
#[test]
fn datagram_after_a_refused_destination_is_not_sent_to_the_one_before() {
    let host = host("127.0.0.1:0");
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), b"for you");
    send_to(&mut vm, port, "169.254.169.254:80".parse().unwrap(), b"not for you");
    send_to(&mut vm, port, host.local_addr().unwrap(), b"for you again");
    assert_eq!(receive(&host).0, b"for you");
    assert_eq!(receive(&host).0, b"for you again");
}

#[test]
fn datagrams_without_socket_or_destination_are_dropped() {
    let mut vm = Vm::new(inet_config());
    vm.send_datagram(4711, 1028, b"x");
    let port = socket(&mut vm, 2);
    vm.send_datagram(port, 1028, b"x");
    vm.send_datagram(port, port, b"x");
    let stream = vm.fresh_port();
    vm.create(stream, 2, 1);
    vm.send_datagram(stream, 1028, b"x");
    vm.settle();
    assert_eq!(vm.stat("datagrams_undeliverable"), 4);
    assert!(vm.datagrams.is_empty());
}

#[test]
fn datagram_too_long_for_udp_is_dropped_and_counted_as_that() {
    let host = host("127.0.0.1:0");
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), &pattern(65508));
    send_to(&mut vm, port, host.local_addr().unwrap(), &pattern(65507));
    assert_eq!(receive(&host).0.len(), 65507);
    assert_eq!(
        (vm.stat("datagrams_too_long"), vm.stat("datagrams_undeliverable")),
        (1, 0)
    );
}

#[test]
fn release_closes_the_socket_at_once() {
    let host = host("127.0.0.1:0");
    let mut vm = Vm::new(inet_config());
    let port = socket(&mut vm, 2);
    send_to(&mut vm, port, host.local_addr().unwrap(), b"x");
    vm.release(port, 620);
    vm.turn();
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 0));
}

#[test]
fn stream_and_datagram_of_one_port_are_two_proxies() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(inet_config());
    let port = vm.open_tcp(listener.local_addr().unwrap());
    vm.create(port, 2, 2);
    vm.turn();
    assert_eq!(vm.handler.muxer().len(), 2);
    assert!(vm.stream(port).is_open());
}
