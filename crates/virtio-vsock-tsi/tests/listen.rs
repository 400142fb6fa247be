//! TSI listeners: what is published, and how connections come in.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{GuestStream, Vm, getname_body, inet_config, listen_body, sockaddr, with_timeout};
use virtio_vsock_tsi::{Limits, VsockConfig};

const GUEST_PORT: u16 = 8080;
const O_NONBLOCK: u32 = 0x800;

/// A port that nobody has at the moment.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn published(at: SocketAddr) -> VsockConfig {
    VsockConfig {
        port_map: [(GUEST_PORT, at)].into(),
        ..inet_config()
    }
}

fn wildcard(port: u16) -> Vec<u8> {
    sockaddr(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
}

/// `socket`, `bind`, `listen` in the guest.
fn listen(vm: &mut Vm, backlog: i32) -> (u32, i32) {
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    vm.listening.push(port);
    let result = vm.request_result(1029, &listen_body(port, port, backlog, &wildcard(GUEST_PORT)));
    (port, result)
}

fn accept_body(port: u32, flags: u32) -> Vec<u8> {
    [port.to_le_bytes(), flags.to_le_bytes()].concat()
}

/// The one stream of the guest's that came in at `port`.
fn inbound(vm: &mut Vm, port: u32) -> u32 {
    vm.wait("an inbound stream", |vm| {
        vm.streams
            .keys()
            .find(|(guest, _)| *guest == port)
            .map(|&(_, host)| host)
    })
}

#[test]
fn mapped_listener_takes_connections_and_tells_their_names() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, result) = listen(&mut vm, 5);
    assert_eq!(result, 0);

    let mut client = TcpStream::connect(at).unwrap();
    with_timeout(&client);
    assert_eq!(vm.request_result(1030, &accept_body(port, 0)), 0);
    let q = inbound(&mut vm, port);
    let name = vm.request(1026, &getname_body(port, q, 2));
    vm.write(port, b"hello from the guest");
    vm.turn();
    client.write_all(b"hello from the host").unwrap();

    assert!(q >= 0x4000_0000);
    assert_eq!(name[..8], [0, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(name[8..24], sockaddr(client.local_addr().unwrap()));
    let mut got = [0; 20];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello from the guest");
    assert_eq!(vm.read(port, 19), b"hello from the host");

    vm.close(port);
    vm.wait_reset(port);
    assert_eq!(client.read(&mut got).unwrap(), 0);
}

/// A3S-Lab/Box issue 371: a listener must not appear on the host unasked.
#[test]
fn unmapped_listener_stays_in_the_guest() {
    let mut vm = Vm::new(inet_config());
    let watched = vm.watcher.watched();
    let (_, result) = listen(&mut vm, 5);
    assert_eq!(result, -1, "EPERM makes the guest listen on its own stack");
    assert_eq!(vm.watcher.watched(), watched);
}

#[test]
fn listener_of_port_0_stays_in_the_guest() {
    let mut vm = Vm::new(published(free_port()));
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.request_result(1029, &listen_body(port, port, 5, &wildcard(0))), -1);
}

#[test]
fn mapped_listener_whose_host_port_is_taken_is_told_eaddrinuse() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Vm::new(published(taken.local_addr().unwrap()));
    assert_eq!(listen(&mut vm, 5).1, -98);
    assert_eq!(vm.stat("listeners_refused"), 1);
}

#[test]
fn accept_without_a_connection_is_eagain_when_non_blocking_and_waits_otherwise() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 5);
    assert_eq!(vm.request_result(1030, &accept_body(port, O_NONBLOCK)), -11);

    let reply_port = vm.fresh_port();
    vm.send_datagram(reply_port, 1030, &accept_body(port, 0));
    vm.settle();
    assert!(vm.take_datagram(reply_port).is_none());
    let _client = TcpStream::connect(at).unwrap();
    assert_eq!(vm.datagram_to(reply_port), 0i32.to_le_bytes());
}

#[test]
fn second_accept_replaces_the_first() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 5);
    let (first, second) = (vm.fresh_port(), vm.fresh_port());
    vm.send_datagram(first, 1030, &accept_body(port, 0));
    vm.send_datagram(second, 1030, &accept_body(port, 0));
    let _client = TcpStream::connect(at).unwrap();
    vm.datagram_to(second);
    vm.settle();
    assert!(vm.take_datagram(first).is_none());
}

#[test]
fn closed_listener_answers_the_accept_that_waits_and_frees_its_port() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 5);
    let reply_port = vm.fresh_port();
    vm.send_datagram(reply_port, 1030, &accept_body(port, 0));
    vm.release(port, 620);
    assert_eq!(vm.datagram_to(reply_port), (-103i32).to_le_bytes());
    TcpListener::bind(at).expect("the host's port is free again");
    assert_eq!(vm.handler.muxer().len(), 0);
}

#[test]
fn connections_beyond_the_backlog_wait_on_the_host() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 2);
    let _clients: Vec<_> = (0..4)
        .map(|_| {
            let client = TcpStream::connect(at).unwrap();
            vm.turn();
            client
        })
        .collect();
    vm.wait("two connections", |vm| (vm.streams.len() == 2).then_some(()));
    vm.settle();
    assert_eq!(vm.streams.len(), 2);
    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(vm.watcher.events, before, "the listener sleeps meanwhile");

    assert_eq!(vm.request_result(1030, &accept_body(port, 0)), 0);
    vm.wait("the third", |vm| (vm.streams.len() == 3).then_some(()));
}

#[test]
fn guest_that_does_not_answer_a_connection_loses_it_after_10_seconds() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (_, result) = listen(&mut vm, 5);
    assert_eq!(result, 0);
    vm.listening.clear();
    let mut client = TcpStream::connect(at).unwrap();
    with_timeout(&client);
    vm.wait("REQUEST", |vm| vm.strays.pop());
    assert_eq!(vm.handler.muxer().len(), 2);

    vm.now += Duration::from_millis(10_001);
    vm.turn();
    assert_eq!(vm.handler.muxer().len(), 1);
    assert_eq!(client.read(&mut [0]).unwrap_err().raw_os_error(), Some(104), "a reset");
}

#[test]
fn refused_connection_is_reset_on_the_host_at_once() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    listen(&mut vm, 5);
    vm.listening.clear();
    let mut client = TcpStream::connect(at).unwrap();
    with_timeout(&client);
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    let mut rst = common::GuestStream::connecting(request.dst_port, request.src_port).packet(3);
    rst.buf_alloc = 0;
    vm.send(&rst);
    vm.turn();
    assert_eq!(client.read(&mut [0]).unwrap_err().raw_os_error(), Some(104));
    assert_eq!(vm.handler.muxer().len(), 1);
}

/// The guest's `accept(2)` asks for the name after the fact, and fails when there is none.
#[test]
fn client_that_resets_before_the_guest_accepts_still_has_a_name() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 5);
    let client = TcpStream::connect(at).unwrap();
    let from = client.local_addr().unwrap();
    let q = inbound(&mut vm, port);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    vm.wait_reset(port);
    assert_eq!(vm.request_result(1030, &accept_body(port, 0)), 0);
    let name = vm.request(1026, &getname_body(port, q, 2));
    assert_eq!(name[..8], [0, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(name[8..24], sockaddr(from));
    vm.release(port, q);
    assert_eq!(vm.request(1026, &getname_body(port, q, 2))[..4], (-22i32).to_le_bytes());
}

/// Servers listen on `::` for both families; the host's side is IPv4 all the same.
#[test]
fn ipv6_listener_that_is_mapped_to_ipv4_names_its_clients_in_ipv6() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let port = vm.fresh_port();
    vm.create(port, 10, 1);
    vm.listening.push(port);
    let any = sockaddr(format!("[::]:{GUEST_PORT}").parse().unwrap());
    assert_eq!(vm.request_result(1029, &listen_body(port, port, 5, &any)), 0);
    let client = TcpStream::connect(at).unwrap();
    let q = inbound(&mut vm, port);
    let name = vm.request(1026, &getname_body(port, q, 2));
    assert_eq!(name[4..8], [28, 0, 0, 0]);
    let mapped = format!("[::ffff:127.0.0.1]:{}", client.local_addr().unwrap().port());
    assert_eq!(name[8..36], sockaddr(mapped.parse().unwrap()));
}

/// A program in the guest that connects to a port that the guest has published: the guest's own stack does not listen
/// there any more, so the request comes to us.
#[test]
fn connect_of_the_guest_to_its_own_published_port_reaches_it() {
    let at = free_port();
    let config = VsockConfig {
        policy: Default::default(),
        ..published(at)
    };
    let mut vm = Vm::new(config);
    let (port, _) = listen(&mut vm, 5);
    let client = vm.open_tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), GUEST_PORT));
    inbound(&mut vm, port);
    vm.write(client, b"to myself");
    assert_eq!(vm.read(port, 9), b"to myself");
}

#[test]
fn requests_on_the_wrong_kind_of_proxy_are_einval() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (listener, _) = listen(&mut vm, 5);
    assert_eq!(vm.connect(listener, at), -22);
    assert_eq!(vm.request_result(1030, &accept_body(4711, 0)), -22);
    let idle = vm.fresh_port();
    vm.create(idle, 2, 1);
    assert_eq!(vm.request_result(1030, &accept_body(idle, 0)), -22);
    assert_eq!(
        vm.request_result(1029, &listen_body(4711, 4711, 5, &wildcard(GUEST_PORT))),
        -1
    );
    assert_eq!(
        vm.request_result(1029, &listen_body(idle, 0, 5, &wildcard(GUEST_PORT))),
        -22
    );
    let datagram = vm.fresh_port();
    vm.create(datagram, 2, 2);
    assert_eq!(
        vm.request_result(1029, &listen_body(datagram, datagram, 5, &wildcard(GUEST_PORT))),
        -95
    );
    assert_eq!(vm.request_result(1030, &accept_body(datagram, 0)), -22);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = vm.open_tcp(server.local_addr().unwrap());
    assert_eq!(
        vm.request_result(1029, &listen_body(open, open, 5, &wildcard(GUEST_PORT))),
        -22
    );
}

#[test]
fn listen_with_any_backlog_and_again_on_a_listener_succeeds() {
    for backlog in [i32::MIN, -1, 0, 1, i32::MAX] {
        let at = free_port();
        let mut vm = Vm::new(published(at));
        let (port, result) = listen(&mut vm, backlog);
        assert_eq!(result, 0, "{backlog}");
        assert_eq!(
            vm.request_result(1029, &listen_body(port, port, backlog, &wildcard(GUEST_PORT))),
            0
        );
        let _client = TcpStream::connect(at).unwrap();
        inbound(&mut vm, port);
    }
}

/// Nobody ever answered, and 4096 of them left no room for anybody's requests.
#[test]
fn new_socket_in_the_place_of_a_listener_ends_the_accept_that_waits_and_who_came_in() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, result) = listen(&mut vm, 5);
    assert_eq!(result, 0);
    vm.listening.clear();
    let mut client = TcpStream::connect(at).unwrap();
    with_timeout(&client);
    let waits = vm.fresh_port();
    vm.send_datagram(waits, 1030, &accept_body(port, 0));
    vm.settle();

    vm.create(port, 2, 1);
    let reply = vm.datagram_to(waits);
    assert_eq!(i32::from_le_bytes(reply.try_into().unwrap()), -103);
    assert!(client.read(&mut [0]).is_err(), "reset");
    vm.settle();
    assert_eq!(vm.watcher.watched(), 0);
}

/// A program whose accept(2) a signal interrupts asks again before it has our answer.
#[test]
fn accept_that_is_asked_again_before_its_answer_is_sent_still_gets_the_connection() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 5);
    vm.listening.clear();
    let asks = vm.fresh_port();
    vm.send_datagram(asks, 1030, &accept_body(port, 0));
    vm.settle();
    let _client = TcpStream::connect(at).unwrap();
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    vm.send(&GuestStream::connecting(port, request.src_port).packet(2));
    vm.send_datagram(asks, 1030, &accept_body(port, 0));
    assert_eq!(vm.datagram_to(asks), [0; 4]);
    assert_eq!(
        vm.request_result(1030, &accept_body(port, O_NONBLOCK)),
        -11,
        "there is but one"
    );
}

#[test]
fn two_accepts_of_one_caller_in_one_pass_take_one_connection() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 5);
    let _clients = [(); 2].map(|()| TcpStream::connect(at).unwrap());
    vm.wait("two connections", |vm| (vm.streams.len() == 2).then_some(()));
    vm.settle();
    let asks = vm.fresh_port();
    vm.send_datagram(asks, 1030, &accept_body(port, O_NONBLOCK));
    vm.send_datagram(asks, 1030, &accept_body(port, O_NONBLOCK));
    assert_eq!(vm.datagram_to(asks), [0; 4]);
    vm.settle();
    assert!(vm.take_datagram(asks).is_none());
    let mut left = || vm.request_result(1030, &accept_body(port, O_NONBLOCK));
    assert_eq!((left(), left()), (0, -11));
}

/// The guest's kernel has queued the connection when it was asked; accept(2) found nothing, and poll(2) said that there was.
#[test]
fn connection_that_the_guest_answers_after_its_end_is_accepted_all_the_same() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, _) = listen(&mut vm, 5);
    vm.listening.clear();
    let _client = TcpStream::connect(at).unwrap();
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    vm.now += Duration::from_millis(10_001);
    vm.turn();
    let answer = GuestStream::connecting(port, request.src_port).packet(2);
    vm.send(&answer);
    vm.settle();
    assert_eq!(vm.strays.pop().expect("RST").op, 3);
    let name = vm.request(1026, &getname_body(port, request.src_port, 2));
    assert_eq!(name[..4], [0; 4]);
    assert_eq!(vm.request_result(1030, &accept_body(port, O_NONBLOCK)), 0);

    vm.send(&answer);
    vm.settle();
    assert_eq!(vm.request_result(1030, &accept_body(port, O_NONBLOCK)), -11, "once");
}

#[test]
fn listener_hears_at_the_port_that_it_named_for_that() {
    let at = free_port();
    let mut vm = Vm::new(published(at));
    let (port, inner) = (vm.fresh_port(), 1000 + vm.fresh_port());
    vm.create(port, 2, 1);
    vm.listening.push(inner);
    assert_eq!(
        vm.request_result(1029, &listen_body(port, inner, 5, &wildcard(GUEST_PORT))),
        0
    );
    let _client = TcpStream::connect(at).unwrap();
    inbound(&mut vm, inner);
    assert_eq!(vm.request_result(1030, &accept_body(port, 0)), 0);
}

#[test]
fn port_published_at_all_ipv6_addresses_takes_ipv4_too_unless_that_is_published_elsewhere() {
    let Ok(probe) = TcpListener::bind("[::]:0") else {
        eprintln!("no IPv6 on this host");
        return;
    };
    let host_port = probe.local_addr().unwrap().port();
    drop(probe);
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), host_port);
    let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), host_port);
    let mut vm = Vm::new(published(everywhere));
    let (port, result) = listen(&mut vm, 5);
    assert_eq!(result, 0);
    let client = TcpStream::connect(here).unwrap();
    let q = inbound(&mut vm, port);
    let name = vm.request(1026, &getname_body(port, q, 2));
    assert_eq!(name[8..24], sockaddr(client.local_addr().unwrap()));
    drop((vm, client));

    let mut vm = Vm::new(VsockConfig {
        port_map: [(GUEST_PORT, everywhere), (81, here)].into(),
        ..inet_config()
    });
    assert_eq!(listen(&mut vm, 5).1, 0);
    let other = vm.fresh_port();
    vm.create(other, 2, 1);
    assert_eq!(vm.request_result(1029, &listen_body(other, other, 5, &wildcard(81))), 0);
}

/// A guest could have another listener count connections without end.
#[test]
fn late_answer_counts_at_the_listener_that_the_connection_came_by() {
    let [at, other_at] = [free_port(), free_port()];
    let mut vm = Vm::new(VsockConfig {
        port_map: [(GUEST_PORT, at), (81, other_at)].into(),
        ..inet_config()
    });
    let (other, port, inner) = (vm.fresh_port(), vm.fresh_port(), vm.fresh_port());
    for (socket, tcp) in [(other, 81), (port, GUEST_PORT)] {
        vm.create(socket, 2, 1);
        assert_eq!(
            vm.request_result(1029, &listen_body(socket, inner, 5, &wildcard(tcp))),
            0
        );
    }
    let _client = TcpStream::connect(at).unwrap();
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    let refused = GuestStream::connecting(inner, request.src_port);
    vm.send(&refused.packet(3));
    vm.send(&refused.packet(2));
    vm.settle();
    let mut accept = |socket| vm.request_result(1030, &accept_body(socket, O_NONBLOCK));
    assert_eq!((accept(other), accept(port)), (-11, 0));
}

/// Each connection that was closed as usual pushed out the name of one that a program had yet to ask for.
#[test]
fn name_of_a_client_that_has_gone_outlives_any_number_of_others_that_were_served() {
    let at = free_port();
    let mut vm = Vm::new(VsockConfig {
        limits: Limits {
            backlog: 2,
            ..Limits::default()
        },
        ..published(at)
    });
    let (port, _) = listen(&mut vm, 5);
    let gone = TcpStream::connect(at).unwrap();
    let from = gone.local_addr().unwrap();
    let q = inbound(&mut vm, port);
    rustix::net::sockopt::set_socket_linger(&gone, Some(Duration::ZERO)).unwrap();
    drop(gone);
    vm.wait_reset(port);
    vm.streams.clear();
    assert_eq!(vm.request_result(1030, &accept_body(port, 0)), 0);

    for _ in 0..300 {
        let _client = TcpStream::connect(at).unwrap();
        assert_eq!(vm.request_result(1030, &accept_body(port, 0)), 0);
        inbound(&mut vm, port);
        vm.close(port);
        vm.wait_reset(port);
        vm.streams.clear();
    }
    let name = vm.request(1026, &getname_body(port, q, 2));
    assert_eq!(name[..8], [0, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(name[8..24], sockaddr(from));
}
