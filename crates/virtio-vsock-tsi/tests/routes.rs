//! Plain vsock ports, both ways.

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{GuestStream, Vm, pattern};
use rustix::event::{EventfdFlags, eventfd};
use virtio_vsock_tsi::{
    DatagramService, Route, RouteError, ServiceRead, StreamService, TsiFlags, VsockConfig, VsockConfigError,
};

fn routes(routes: Vec<Route>) -> VsockConfig {
    VsockConfig {
        routes,
        ..VsockConfig::default()
    }
}

fn client(path: &std::path::Path) -> UnixStream {
    let client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
}

fn refused(vm: &mut Vm, host_port: u32) {
    let port = vm.fresh_port();
    vm.streams
        .insert((port, host_port), GuestStream::connecting(port, host_port));
    let request = vm.streams[&(port, host_port)].packet(1);
    vm.send(&request);
    vm.turn();
    vm.wait_reset(port);
}

#[test]
fn guest_reaches_a_socket_of_the_host_by_its_port() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut vm = Vm::new(routes(vec![Route::Connect { port: 52, path }]));
    let port = vm.fresh_port();
    vm.open_stream(port, 52);
    let (mut host, _) = listener.accept().unwrap();
    let data = pattern(1 << 20);
    let expected = data.clone();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        host.read_to_end(&mut got).unwrap();
        got == expected
    });
    for piece in data.chunks(16 << 10) {
        vm.write(port, piece);
    }
    vm.shutdown(port, 3);
    vm.wait_reset(port);
    assert!(reader.join().unwrap());
    // The port can be used again at once.
    vm.streams.clear();
    vm.open_stream(port, 52);
}

/// A guest that connected again from the same port at once was refused now and then: the second reset met its new socket.
#[test]
fn packet_that_crossed_a_reset_gets_no_second_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut vm = Vm::new(routes(vec![Route::Connect { port: 52, path }]));
    let port = vm.fresh_port();
    vm.open_stream(port, 52);
    drop(listener.accept().unwrap());
    vm.wait_reset(port);
    vm.shutdown(port, 3);
    vm.streams.clear();
    vm.settle();

    assert!(vm.strays.is_empty(), "{:?}", vm.strays);
    vm.open_stream(port, 52);
    // A key that was never reset since is as unknown as any.
    vm.close(port);
    vm.wait_reset(port);
}

/// The time to linger was that of the whole rest, not of a standstill.
#[test]
fn slow_host_gets_what_the_guest_sent_last_however_long_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut vm = Vm::new(routes(vec![Route::Connect { port: 52, path }]));
    let port = vm.fresh_port();
    vm.open_stream(port, 52);
    let (mut host, _) = listener.accept().unwrap();
    let data = pattern(1 << 20);
    let sent = vm.send_until_the_host_is_full(port, &data);
    vm.shutdown(port, 3);
    vm.settle();

    let mut got = Vec::new();
    while !vm.stream(port).is_reset() && got.len() < sent {
        let mut part = [0; 80 << 10];
        let len = host.read(&mut part).unwrap();
        got.extend(&part[..len]);
        vm.settle();
        vm.now += Duration::from_secs(3);
        vm.settle();
    }
    host.read_to_end(&mut got).unwrap();
    assert!(got == data[..sent], "{} bytes of {sent}", got.len());
}

#[test]
fn ports_without_a_route_or_with_nobody_behind_it_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut vm = Vm::new(routes(vec![
        Route::Connect {
            port: 52,
            path: dir.path().join("nobody"),
        },
        Route::Listen {
            port: 53,
            path: dir.path().join("l"),
        },
    ]));
    for port in [52, 53, 54, 620, 1024] {
        refused(&mut vm, port);
    }
    assert_eq!(vm.handler.muxer().len(), 0);
}

#[test]
fn host_client_reaches_a_port_of_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let mut vm = Vm::new(routes(vec![Route::Listen {
        port: 80,
        path: path.clone(),
    }]));
    vm.listening.push(80);
    let mut client = client(&path);
    client.write_all(b"before the guest accepted").unwrap();
    assert_eq!(vm.wait("a stream", |vm| (!vm.streams.is_empty()).then_some(())), ());
    assert_eq!(vm.read(80, 25), b"before the guest accepted");
    vm.write(80, b"answer");
    vm.turn();
    let mut got = [0; 6];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"answer");
}

/// libkrun issue 684: the refusal took 5 seconds.
#[test]
fn host_client_of_a_port_that_the_guest_refuses_sees_the_end_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let mut vm = Vm::new(routes(vec![Route::Listen {
        port: 80,
        path: path.clone(),
    }]));
    let mut client = client(&path);
    let request = vm.wait("REQUEST", |vm| vm.strays.pop());
    assert_eq!((request.op, request.dst_port), (1, 80));
    vm.send(&GuestStream::connecting(80, request.src_port).packet(3));
    vm.turn();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(vm.handler.muxer().len(), 0);
}

#[test]
fn connect_line_reaches_the_port_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let mut vm = Vm::new(routes(vec![Route::Multiplex { path: path.clone() }]));
    vm.listening.push(7000);
    let mut client = client(&path);
    client.write_all(b"CONN").unwrap();
    vm.settle();
    client.write_all(b"ECT 7000\nand more").unwrap();
    vm.wait("a stream", |vm| (!vm.streams.is_empty()).then_some(()));
    assert_eq!(vm.read(7000, 8), b"and more");
    vm.write(7000, b"hi");
    vm.turn();

    let host_port = vm.stream(7000).host_port;
    let expected = format!("OK {host_port}\nhi");
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, expected.as_bytes());
}

#[test]
fn guest_reaches_the_socket_with_its_port_behind_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let listener = UnixListener::bind(dir.path().join("m_52")).unwrap();
    let mut vm = Vm::new(routes(vec![Route::Multiplex { path }]));
    let port = vm.fresh_port();
    vm.open_stream(port, 52);
    listener.accept().unwrap();
    for port in [53, 620] {
        refused(&mut vm, port);
    }
}

/// cloud-hypervisor issues 6621, 6798: these ended the monitor.
#[test]
fn connect_lines_that_are_none_end_with_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let mut vm = Vm::new(routes(vec![Route::Multiplex { path: path.clone() }]));
    for line in [
        &b""[..],
        b"CONNECT",
        b"CONNECT 80",
        b"\n",
        b"CONNECT x\n",
        b"GET / HTTP/1.1\r\n",
        &[b'a'; 100],
    ] {
        let mut client = client(&path);
        client.write_all(line).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        vm.wait("the end of the client", |_| common::poll_in(&client).then_some(()));
        assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0, "{line:?}");
    }
    vm.settle();
    assert_eq!((vm.handler.muxer().len(), vm.watcher.watched()), (0, 1));
}

#[test]
fn client_that_says_nothing_is_closed_after_10_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let mut vm = Vm::new(routes(vec![Route::Multiplex { path: path.clone() }]));
    let mut client = client(&path);
    vm.settle();
    vm.now = vm.handler.next_deadline().expect("a deadline");
    vm.turn();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

struct Echo {
    held: Vec<u8>,
    finished: bool,
}

impl StreamService for Echo {
    /// Takes little at a time, to be asked often.
    fn write(&mut self, data: &[u8]) -> usize {
        let room = 10_000usize.saturating_sub(self.held.len()).min(data.len());
        self.held.extend(&data[..room]);
        room
    }

    fn read(&mut self, buf: &mut [u8]) -> ServiceRead {
        let len = self.held.len().min(buf.len());
        buf[..len].copy_from_slice(&self.held[..len]);
        self.held.drain(..len);
        match len {
            0 if self.finished => ServiceRead::Eof,
            0 => ServiceRead::Empty,
            _ => ServiceRead::Bytes(len),
        }
    }

    fn guest_finished(&mut self) {
        self.finished = true;
    }
}

fn echo() -> Route {
    let connect = || {
        Some(Echo {
            held: Vec::new(),
            finished: false,
        })
    };
    Route::Service {
        port: 7,
        service: Box::new(connect),
    }
}

#[test]
fn stream_service_echoes_and_ends_when_the_guest_does() {
    let mut vm = Vm::new(routes(vec![echo()]));
    let port = vm.fresh_port();
    vm.open_stream(port, 7);
    let data = pattern(300_000);
    let mut got = Vec::new();
    for piece in data.chunks(20_000) {
        vm.write(port, piece);
        vm.turn();
        got.extend(vm.take(port, usize::MAX));
    }
    vm.shutdown(port, 2);
    vm.wait("the rest", |vm| {
        got.extend(vm.take(port, usize::MAX));
        vm.stream(port).peer_finished().then_some(())
    });
    assert!(got == data);
}

struct Mirror {
    waiting: Vec<(u32, Vec<u8>)>,
    heard: mpsc::Sender<Vec<u8>>,
}

impl DatagramService for Mirror {
    fn receive(&mut self, guest_port: u32, data: &[u8]) {
        let _ = self.heard.send(data.to_vec());
        self.waiting.push((guest_port, data.to_vec()));
    }

    fn next(&mut self) -> Option<(u32, Vec<u8>)> {
        self.waiting.pop()
    }
}

#[test]
fn datagram_service_hears_and_answers() {
    let (heard, hears) = mpsc::channel();
    let service = Box::new(Mirror {
        waiting: Vec::new(),
        heard,
    });
    let mut vm = Vm::new(routes(vec![Route::DatagramService { port: 99, service }]));
    vm.send_datagram(5000, 99, b"are you there");
    let packet = vm.wait("an answer", |vm| vm.datagrams.pop());
    assert_eq!(
        (packet.src_port, packet.dst_port, &packet.payload[..]),
        (99, 5000, &b"are you there"[..])
    );
    vm.send_datagram(5000, 99, &pattern(4000));
    vm.send_datagram(5000, 98, b"nobody");
    vm.settle();
    assert_eq!(hears.try_iter().count(), 2);
    assert!(vm.datagrams.is_empty());
    assert_eq!(
        (vm.stat("datagrams_too_long"), vm.stat("datagrams_undeliverable")),
        (1, 1)
    );
}

/// What a service and the thread that feeds it share: bytes for the guest, and the doorbell.
#[derive(Clone)]
struct Fed {
    waiting: Arc<Mutex<Vec<u8>>>,
    bell: Arc<OwnedFd>,
}

impl Fed {
    fn new() -> Fed {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        Fed {
            waiting: Arc::default(),
            bell: Arc::new(bell),
        }
    }

    fn feed(&self, bytes: &[u8]) {
        self.waiting.lock().unwrap().extend(bytes);
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).unwrap();
    }

    fn route(&self) -> Route {
        let fed = self.clone();
        Route::Service {
            port: 7,
            service: Box::new(move || Some(fed.clone())),
        }
    }
}

impl StreamService for Fed {
    fn write(&mut self, _data: &[u8]) -> usize {
        0
    }

    fn read(&mut self, buf: &mut [u8]) -> ServiceRead {
        let mut waiting = self.waiting.lock().unwrap();
        let len = waiting.len().min(buf.len());
        buf[..len].copy_from_slice(&waiting[..len]);
        waiting.drain(..len);
        match len {
            0 => ServiceRead::Empty,
            _ => ServiceRead::Bytes(len),
        }
    }

    fn waker(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}

#[test]
fn stream_service_that_has_something_later_is_asked_when_it_says_so() {
    let fed = Fed::new();
    let mut vm = Vm::new(routes(vec![fed.route()]));
    let port = vm.fresh_port();
    vm.open_stream(port, 7);
    for bytes in [&b"first"[..], b"second"] {
        vm.settle();
        fed.feed(bytes);
        assert_eq!(vm.read(port, bytes.len()), bytes);
    }
}

/// The event loop reported it without end, at the guest's will.
#[test]
fn stream_service_with_bytes_that_the_guest_does_not_take_costs_no_turns() {
    let fed = Fed::new();
    let mut vm = Vm::new(routes(vec![fed.route()]));
    let port = vm.fresh_port();
    vm.open_stream(port, 7);
    vm.shutdown(port, 1);
    vm.write(port, b"what the service does not take");
    vm.settle();
    fed.feed(b"what the guest does not take");
    vm.settle();
    let events = vm.watcher.events;
    vm.settle();
    assert_eq!(vm.watcher.events, events);
}

/// It never returned: the service's descriptor can always be written to.
#[test]
fn end_of_the_machine_does_not_wait_for_a_service_that_takes_nothing() {
    let fed = Fed::new();
    let mut vm = Vm::new(routes(vec![fed.route()]));
    let port = vm.fresh_port();
    vm.open_stream(port, 7);
    vm.write(port, b"last words");
    vm.turn();
    for patience in [Duration::ZERO, Duration::from_millis(20)] {
        let mem = vm.peer.guest().shared_mem();
        vm.handler.finish(vm.now, patience, &mut vm.queues, &*mem).unwrap();
    }
}

/// Datagrams for one of the guest's ports that come from another thread.
struct FedDatagrams(Fed);

impl DatagramService for FedDatagrams {
    fn receive(&mut self, _guest_port: u32, _data: &[u8]) {}

    fn next(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut waiting = self.0.waiting.lock().unwrap();
        let byte = waiting.pop()?;
        Some((5000, vec![byte]))
    }

    fn waker(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.bell.as_fd())
    }
}

/// It came with the next datagram that the guest sent.
#[test]
fn datagram_service_that_has_something_later_is_asked_when_it_says_so() {
    let fed = Fed::new();
    let service = Box::new(FedDatagrams(fed.clone()));
    let mut vm = Vm::new(routes(vec![Route::DatagramService { port: 99, service }]));
    for byte in *b"ab" {
        vm.settle();
        fed.feed(&[byte]);
        let packet = vm.wait("a datagram", |vm| vm.datagrams.pop());
        assert_eq!(
            (packet.src_port, packet.dst_port, packet.payload),
            (99, 5000, vec![byte])
        );
    }
    vm.reset();
    fed.feed(b"c");
    assert_eq!(vm.wait("a datagram", |vm| vm.datagrams.pop()).payload, b"c");
    vm.handler.stop(&mut vm.watcher);
    assert_eq!(vm.watcher.watched(), 0);
}

/// The one with the lowest port was asked first each time.
#[test]
fn datagram_services_that_always_have_something_take_turns() {
    let busy = [97, 98, 99].map(|port| (port, Fed::new()));
    let services = busy.iter().map(|(port, fed)| Route::DatagramService {
        port: *port,
        service: Box::new(FedDatagrams(fed.clone())),
    });
    let mut vm = Vm::without_rx(routes(services.collect()));
    for (_, fed) in &busy {
        fed.feed(&[0; 20]);
    }
    vm.settle();
    vm.peer.post_rx(6);
    vm.turn();
    let from: Vec<_> = vm.datagrams.iter().map(|packet| packet.src_port).collect();
    assert_eq!(from[..6], [97, 98, 99, 97, 98, 99]);
}

/// How many of 20 turns bring a datagram of a service, and how many bring data of streams, where both always have something and
/// the guest has `buffers` for them.
fn turns_with_datagrams_and_data(buffers: usize) -> (usize, usize) {
    let fed = Fed::new();
    let service = Box::new(FedDatagrams(fed.clone()));
    let mut vm = Vm::without_rx(VsockConfig {
        routes: vec![Route::DatagramService { port: 99, service }],
        ..common::inet_config()
    });
    vm.peer.post_rx(buffers);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let streams = [(); 4].map(|()| {
        let port = vm.open_tcp(listener.local_addr().unwrap());
        let host = listener.accept().unwrap().0;
        host.set_nonblocking(true).unwrap();
        (port, host)
    });
    let busy = |vm: &mut Vm| {
        for (_, host) in &streams {
            while let Ok(1..) = (&*host).write(&[1; 1 << 16]) {}
        }
        vm.turn();
        let with_datagrams = !std::mem::take(&mut vm.datagrams).is_empty();
        let bytes: usize = streams.iter().map(|(port, _)| vm.take(*port, usize::MAX).len()).sum();
        (with_datagrams, bytes > 0)
    };
    (0..20).for_each(|_| _ = busy(&mut vm));
    fed.feed(&[0; 2000]);
    (0..20).fold((0, 0), |(datagrams, data), _| {
        let (with_datagrams, with_data) = busy(&mut vm);
        (datagrams + usize::from(with_datagrams), data + usize::from(with_data))
    })
}

/// Streams that always had something left them no buffer, for as long as that lasted.
#[test]
fn datagram_services_have_turns_beside_busy_streams() {
    assert_eq!(turns_with_datagrams_and_data(128), (20, 20));
}

/// A stream's turn took all buffers that there were.
#[test]
fn datagram_services_have_turns_beside_busy_streams_when_buffers_are_few() {
    assert_eq!(turns_with_datagrams_and_data(4), (20, 20));
    assert_eq!(turns_with_datagrams_and_data(1), (10, 10));
}

#[test]
fn routes_that_cannot_be_are_refused() {
    let to = |port, path: &str| Route::Connect {
        port,
        path: path.into(),
    };
    let datagram = |port| Route::DatagramService {
        port,
        service: Box::new(Mirror {
            waiting: Vec::new(),
            heard: mpsc::channel().0,
        }),
    };
    let tsi = TsiFlags {
        inet: true,
        unix: false,
    };
    for (list, tsi, error) in [
        (vec![to(0, "/a")], tsi, RouteError::Reserved(0)),
        (vec![to(620, "/a")], tsi, RouteError::Reserved(620)),
        (vec![to(u32::MAX, "/a")], tsi, RouteError::Reserved(u32::MAX)),
        (vec![to(5, "/a"), to(5, "/b")], tsi, RouteError::Duplicate(5)),
        (vec![to(5, "")], tsi, RouteError::Path("".into())),
        (
            vec![to(5, &"x".repeat(108))],
            tsi,
            RouteError::Path("x".repeat(108).into()),
        ),
        (vec![datagram(123)], tsi, RouteError::Reserved(123)),
        (vec![datagram(1025)], tsi, RouteError::Reserved(1025)),
        (vec![datagram(9), datagram(9)], tsi, RouteError::Duplicate(9)),
    ] {
        let config = VsockConfig { tsi, ..routes(list) };
        assert_eq!(config.into_handler().err(), Some(VsockConfigError::Route(error)));
    }
    assert!(
        routes(vec![datagram(1025)]).into_handler().is_ok(),
        "without TSI the port is like any other"
    );
}

#[test]
fn contradictions_of_the_set_up_are_refused() {
    let map: std::collections::BTreeMap<_, _> = [(80, "127.0.0.1:8080".parse().unwrap())].into();
    let config = VsockConfig {
        port_map: map,
        ..VsockConfig::default()
    };
    assert_eq!(
        config.into_handler().err(),
        Some(VsockConfigError::PortMapWithoutInet(80))
    );
    let config = VsockConfig {
        tsi: TsiFlags {
            inet: false,
            unix: true,
        },
        ..VsockConfig::default()
    };
    assert_eq!(config.into_handler().err(), Some(VsockConfigError::UnixWithoutRoot));
    let config = VsockConfig {
        publish_unix: vec![b"/run/app".to_vec()],
        ..VsockConfig::default()
    };
    assert_eq!(
        config.into_handler().err(),
        Some(VsockConfigError::PublishWithoutUnix("/run/app".into()))
    );
}

#[test]
fn stale_socket_of_a_listen_route_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    drop(UnixListener::bind(&path).unwrap());
    let route = || {
        vec![Route::Listen {
            port: 80,
            path: path.clone(),
        }]
    };
    let first = routes(route()).into_handler().unwrap();
    assert!(matches!(
        routes(route()).into_handler().err(),
        Some(VsockConfigError::Route(RouteError::Listen { .. }))
    ));
    drop(first);
    assert!(!path.exists(), "the socket goes with the device");
}

#[test]
fn clients_before_the_driver_is_ready_wait_in_the_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let mut vm = Vm::new(routes(vec![Route::Listen {
        port: 80,
        path: path.clone(),
    }]));
    vm.handler.stop(&mut vm.watcher);
    let mut client = client(&path);
    client.write_all(b"early").unwrap();
    vm.settle();
    assert_eq!((vm.handler.muxer().len(), vm.watcher.events), (0, 0));

    vm.listening.push(80);
    vm.handler.start(&mut vm.watcher).unwrap();
    vm.wait("a stream", |vm| (!vm.streams.is_empty()).then_some(()));
    assert_eq!(vm.read(80, 5), b"early");
}

/// The event that ends the guest's streams, told to a guest that goes on as it is.
fn transport_reset(vm: &mut Vm) {
    vm.peer.post_event(4);
    vm.handler.transport_reset();
    vm.turn();
    assert_eq!(vm.peer.events(), [[0; 4]]);
    vm.peer.post_event(4);
}

fn route_to_a_socket() -> (tempfile::TempDir, UnixListener, VsockConfig) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    (dir, listener, routes(vec![Route::Connect { port: 52, path }]))
}

/// The guest's kernel has forgotten the stream and will never end it, so the device had its half for ever.
#[test]
fn plain_stream_that_a_transport_reset_has_ended_in_the_guest_ends_on_the_host() {
    let (_dir, listener, config) = route_to_a_socket();
    let mut vm = Vm::new(config);
    vm.open_stream(7000, 52);
    let (mut host, _) = listener.accept().unwrap();
    vm.write(7000, b"sent before");
    transport_reset(&mut vm);
    vm.wait_reset(7000);

    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"sent before");
    assert_eq!(vm.handler.muxer().len(), 0);
    vm.streams.clear();
    vm.open_stream(7000, 52);
}

#[test]
fn stream_that_the_guest_had_closed_before_a_transport_reset_is_passed_on_to_its_end() {
    let (_dir, listener, config) = route_to_a_socket();
    let mut vm = Vm::new(config);
    vm.open_stream(7000, 52);
    let (mut host, _) = listener.accept().unwrap();
    let sent = vm.send_until_the_host_is_full(7000, &pattern(1 << 20));
    vm.shutdown(7000, 3);
    vm.settle();
    transport_reset(&mut vm);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        host.read_to_end(&mut got).map(|_| got)
    });
    vm.wait_reset(7000);
    assert!(reader.join().unwrap().unwrap() == pattern(1 << 20)[..sent]);
}

/// Linux ends those that are open; one that waits for its RESPONSE goes on waiting.
#[test]
fn stream_that_the_driver_has_not_heard_of_outlives_a_transport_reset() {
    let (_dir, listener, config) = route_to_a_socket();
    let mut vm = Vm::without_rx(config);
    vm.streams.insert((7000, 52), common::GuestStream::connecting(7000, 52));
    let request = vm.stream(7000).packet(1);
    vm.send(&request);
    vm.settle();
    let (mut host, _) = listener.accept().unwrap();
    transport_reset(&mut vm);
    vm.peer.post_rx(8);
    vm.wait("RESPONSE", |vm| vm.stream(7000).is_open().then_some(()));
    host.write_all(b"still here").unwrap();
    assert_eq!(vm.read(7000, 10), b"still here");
}
