//! A device with a driver that behaves like Linux 6.12, real sockets, a real event loop and a clock that tests move.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod kernel;
pub mod pairs;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use test_guest::{SplitRing, VsockPacket, VsockPeer};
use virtio_queue::{Queue, QueueT};
use virtio_ring::{Hold, Ring};
use virtio_vsock_tsi::{Handler, Interest, Queues, Readiness, Served, VsockConfig, Watcher};

pub use kernel::GuestStream;

/// Every wait of a test ends after so many turns, each of which waits for the host's kernel for 20 ms at most.
const MAX_TURNS: usize = 1000;

/// epoll, with a count of what it was asked.
pub struct Loop {
    epoll: OwnedFd,
    fds: HashMap<i32, u32>,
    pub calls: usize,
    pub events: usize,
    pub refuse: bool,
}

fn flags(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    if interest.readable {
        flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
    }
    if interest.writable {
        flags |= epoll::EventFlags::OUT;
    }
    flags
}

impl Loop {
    pub fn new() -> Loop {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        Loop {
            epoll,
            fds: HashMap::new(),
            calls: 0,
            events: 0,
            refuse: false,
        }
    }

    pub fn watched(&self) -> usize {
        self.fds.len()
    }

    pub fn wait(&mut self, timeout: Duration) -> Vec<(u32, Readiness)> {
        let mut buffer = Vec::with_capacity(64);
        let timeout = Timespec::try_from(timeout).unwrap();
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut buffer), Some(&timeout));
        self.events += buffer.len();
        buffer
            .iter()
            .map(|event| {
                let flags = event.flags;
                let readiness = Readiness {
                    readable: flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
                    writable: flags.contains(epoll::EventFlags::OUT),
                    hangup: flags.contains(epoll::EventFlags::HUP),
                    error: flags.contains(epoll::EventFlags::ERR),
                };
                (u32::try_from(event.data.u64()).unwrap(), readiness)
            })
            .collect()
    }
}

impl Watcher for Loop {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.calls += 1;
        if self.refuse {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert_eq!(self.fds.insert(fd.as_raw_fd(), token), None, "added twice");
        epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token.into()),
            flags(interest),
        )?;
        Ok(())
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.calls += 1;
        if self.refuse {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        assert_eq!(
            self.fds.get(&fd.as_raw_fd()),
            Some(&token),
            "changed without being added"
        );
        epoll::modify(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token.into()),
            flags(interest),
        )?;
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.calls += 1;
        assert!(
            self.fds.remove(&fd.as_raw_fd()).is_some(),
            "removed without being added"
        );
        epoll::delete(&self.epoll, fd)?;
        Ok(())
    }
}

pub struct Vm {
    pub peer: VsockPeer,
    pub handler: Handler,
    pub queues: Queues,
    pub watcher: Loop,
    pub now: Duration,
    pub streams: HashMap<(u32, u32), GuestStream>,
    /// Control replies and datagrams, by the port that they came to.
    pub datagrams: Vec<VsockPacket>,
    /// Stream packets that belong to no stream of the guest's.
    pub strays: Vec<VsockPacket>,
    pub served: Served,
    pub interrupts: usize,
    /// Vsock ports that the guest listens on: what asks for one is accepted.
    pub listening: Vec<u32>,
    next_port: u32,
}

/// The device's side of a ring.
pub fn device_ring(driver: &SplitRing) -> Ring {
    let mut queue = Queue::new(driver.size()).unwrap();
    queue
        .try_set_desc_table_address(vm_memory::GuestAddress(driver.desc_table()))
        .unwrap();
    queue
        .try_set_avail_ring_address(vm_memory::GuestAddress(driver.avail_ring()))
        .unwrap();
    queue
        .try_set_used_ring_address(vm_memory::GuestAddress(driver.used_ring()))
        .unwrap();
    queue.set_event_idx(driver.event_idx());
    queue.set_ready(true);
    Ring::new(queue)
}

pub fn queues(peer: &VsockPeer) -> Queues {
    Queues {
        rx: device_ring(&peer.rx),
        tx: device_ring(&peer.tx),
        event: device_ring(&peer.event),
    }
}

/// TCP and UDP over TSI, the host's loopback allowed.
pub fn inet_config() -> VsockConfig {
    let allow = ["127.0.0.0/8", "::1"].map(|rule| rule.parse().unwrap());
    VsockConfig {
        tsi: virtio_vsock_tsi::TsiFlags {
            inet: true,
            unix: false,
        },
        policy: virtio_vsock_tsi::vsock_proto::policy::Policy::new(allow.to_vec(), Vec::new()),
        ..VsockConfig::default()
    }
}

impl Vm {
    pub fn new(config: VsockConfig) -> Vm {
        let mut vm = Vm::without_rx(config);
        vm.peer.post_rx(128);
        vm
    }

    pub fn with_event_idx(config: VsockConfig) -> Vm {
        let mut vm = Vm::with_peer(config, VsockPeer::with_event_idx());
        vm.peer.post_rx(128);
        vm
    }

    pub fn without_rx(config: VsockConfig) -> Vm {
        Vm::with_peer(config, VsockPeer::new())
    }

    fn with_peer(config: VsockConfig, peer: VsockPeer) -> Vm {
        let mut vm = Vm {
            queues: queues(&peer),
            peer,
            handler: config.into_handler().unwrap(),
            watcher: Loop::new(),
            now: Duration::ZERO,
            streams: HashMap::new(),
            datagrams: Vec::new(),
            strays: Vec::new(),
            served: Served::default(),
            interrupts: 0,
            listening: Vec::new(),
            next_port: 50_000,
        };
        vm.handler.start(&mut vm.watcher).unwrap();
        vm
    }

    /// The driver resets the device and sets it up again with fresh rings.
    pub fn reset(&mut self) {
        self.handler.reset();
        self.watcher = Loop::new();
        self.peer = VsockPeer::new();
        self.queues = queues(&self.peer);
        self.peer.post_rx(128);
        self.streams.clear();
        self.handler.start(&mut self.watcher).unwrap();
    }

    /// Another device takes over memory and rings where they are; the guest's kernel forgets its streams.
    pub fn move_to(&mut self, config: VsockConfig) {
        let rings = std::mem::replace(&mut self.queues, queues(&self.peer));
        let [rx, tx, event] = [rings.rx, rings.tx, rings.event].map(|ring| Ring::new(ring.into_queue()));
        self.queues = Queues { rx, tx, event };
        self.handler = config.into_handler().unwrap();
        self.watcher = Loop::new();
        self.streams.clear();
        self.handler.start(&mut self.watcher).unwrap();
    }

    pub fn stat(&self, name: &str) -> u64 {
        let snapshot = self.handler.stats().snapshot();
        snapshot
            .iter()
            .find(|(of, _)| *of == name)
            .expect("a counter of that name")
            .1
    }

    /// One turn of everybody: what is ready, the queues, the guest's kernel.
    pub fn turn(&mut self) {
        self.turn_waiting(Duration::ZERO);
    }

    /// A turn when the device has held back sent packets for as long as it may.
    pub fn turn_later(&mut self) {
        self.now += Hold::PATIENCE;
        self.turn();
    }

    fn turn_waiting(&mut self, timeout: Duration) {
        for (token, readiness) in self.watcher.wait(timeout) {
            self.handler.socket_ready(self.now, token, readiness, &mut self.watcher);
        }
        if self.handler.next_deadline().is_some_and(|at| at <= self.now) {
            self.handler.deadline_passed(self.now, &mut self.watcher);
        }
        let mem = self.peer.guest().shared_mem();
        self.served = self
            .handler
            .serve(self.now, &mut self.queues, &*mem, &mut self.watcher)
            .unwrap();
        self.interrupts += usize::from(self.served.interrupt);
        self.kernel_turn();
    }

    /// Waits until `done` gives something.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, mut done: impl FnMut(&mut Vm) -> Option<T>) -> T {
        for _ in 0..MAX_TURNS {
            if let Some(result) = done(self) {
                return result;
            }
            self.turn();
            if let Some(result) = done(self) {
                return result;
            }
            self.turn_waiting(Duration::from_millis(20));
        }
        panic!(
            "{what} did not come to pass; counters: {:?}",
            self.handler.stats().snapshot()
        );
    }

    /// Enough turns for all that is going to happen without more input.
    pub fn settle(&mut self) {
        for _ in 0..5 {
            self.turn_waiting(Duration::from_millis(1));
        }
    }

    /// A vsock port that no socket of the guest has had.
    pub fn fresh_port(&mut self) -> u32 {
        self.next_port += 1;
        self.next_port
    }

    pub fn send(&mut self, packet: &VsockPacket) {
        for _ in 0..MAX_TURNS {
            if self.peer.can_send() {
                break;
            }
            self.turn();
        }
        self.peer.send(packet);
    }

    /// A datagram from the guest.
    pub fn send_datagram(&mut self, from: u32, to: u32, payload: &[u8]) {
        self.send(&VsockPacket {
            src_cid: 3,
            dst_cid: 2,
            src_port: from,
            dst_port: to,
            kind: 3,
            op: 5,
            payload: payload.to_vec(),
            ..VsockPacket::default()
        });
    }

    /// The first datagram for a port of the guest's.
    #[track_caller]
    pub fn datagram_to(&mut self, port: u32) -> Vec<u8> {
        self.wait("a datagram", |vm| vm.take_datagram(port))
    }

    pub fn take_datagram(&mut self, port: u32) -> Option<Vec<u8>> {
        let at = self.datagrams.iter().position(|packet| packet.dst_port == port)?;
        Some(self.datagrams.remove(at).payload)
    }

    /// Sends a control request and waits for the answer to it.
    #[track_caller]
    pub fn request(&mut self, to: u32, body: &[u8]) -> Vec<u8> {
        let reply_port = self.fresh_port();
        self.send_datagram(reply_port, to, body);
        self.datagram_to(reply_port)
    }

    #[track_caller]
    pub fn request_result(&mut self, to: u32, body: &[u8]) -> i32 {
        let reply = self.request(to, body);
        i32::from_le_bytes(reply.try_into().expect("a reply of 4 bytes"))
    }

    pub fn create(&mut self, port: u32, family: u16, kind: u16) {
        let reply_port = self.fresh_port();
        self.send_datagram(reply_port, 1024, &create_body(port, family, kind));
    }

    #[track_caller]
    pub fn connect(&mut self, port: u32, to: SocketAddr) -> i32 {
        self.request_result(1025, &connect_body(port, &sockaddr(to)))
    }

    pub fn release(&mut self, port: u32, host_port: u32) {
        let reply_port = self.fresh_port();
        self.send_datagram(
            reply_port,
            1031,
            &[port.to_le_bytes(), host_port.to_le_bytes()].concat(),
        );
    }

    /// Everything up to an open stream, as `connect(2)` in the guest does it.
    #[track_caller]
    pub fn open_tcp(&mut self, to: SocketAddr) -> u32 {
        let port = self.fresh_port();
        self.create(port, if to.is_ipv4() { 2 } else { 10 }, 1);
        assert_eq!(self.connect(port, to), 0, "connect");
        self.open_stream(port, 620);
        port
    }

    /// REQUEST and RESPONSE.
    #[track_caller]
    pub fn open_stream(&mut self, port: u32, host_port: u32) {
        self.streams
            .insert((port, host_port), GuestStream::connecting(port, host_port));
        let request = self.streams[&(port, host_port)].packet(1);
        self.send(&request);
        self.wait("RESPONSE", |vm| vm.stream(port).is_open().then_some(()));
    }

    /// The stream with this port of the guest's. There must be just one.
    #[track_caller]
    pub fn stream(&mut self, port: u32) -> &mut GuestStream {
        let mut of_port: Vec<_> = self.streams.values_mut().filter(|stream| stream.port == port).collect();
        assert_eq!(of_port.len(), 1, "streams of port {port}");
        of_port.pop().unwrap()
    }

    /// `write(2)` until all is in the ring.
    #[track_caller]
    pub fn write(&mut self, port: u32, data: &[u8]) {
        let mut rest = data;
        self.wait("the guest's write", |vm| {
            while !rest.is_empty() && vm.peer.can_send() {
                let stream = vm.stream(port);
                let room = stream.room().min(rest.len()).min(65536);
                if room == 0 {
                    break;
                }
                let packet = stream.data_packet(&rest[..room]);
                vm.peer.send(&packet);
                rest = &rest[room..];
            }
            rest.is_empty().then_some(())
        });
    }

    /// Sends until the host's socket and our buffer are full and the guest's kernel has no credit left. Returns how much.
    pub fn send_until_the_host_is_full(&mut self, port: u32, data: &[u8]) -> usize {
        let mut sent = 0;
        let mut idle = 0;
        while idle < 20 {
            idle += 1;
            let room = self.stream(port).room().min(65536).min(data.len() - sent);
            if room > 0 && self.peer.can_send() {
                let packet = self.stream(port).data_packet(&data[sent..sent + room]);
                self.peer.send(&packet);
                sent += room;
                idle = 0;
            }
            self.turn();
        }
        sent
    }

    /// `read(2)` until there are `len` bytes.
    #[track_caller]
    pub fn read(&mut self, port: u32, len: usize) -> Vec<u8> {
        let mut got = Vec::new();
        self.wait("bytes from the host", |vm| {
            got.extend(vm.take(port, len - got.len()));
            (got.len() == len).then_some(())
        });
        got
    }

    /// What the guest's program reads now, with what its kernel says about that.
    pub fn take(&mut self, port: u32, max: usize) -> Vec<u8> {
        let (bytes, update) = self.stream(port).read(max);
        if let Some(packet) = update {
            self.send(&packet);
        }
        bytes
    }

    #[track_caller]
    pub fn wait_eof(&mut self, port: u32) {
        self.wait("end of file", |vm| vm.stream(port).peer_finished().then_some(()));
    }

    /// `shutdown(2)`: 1 receives no more, 2 sends no more.
    pub fn shutdown(&mut self, port: u32, flags: u32) {
        let packet = VsockPacket {
            flags,
            ..self.stream(port).packet(4)
        };
        self.send(&packet);
    }

    /// `close(2)` of a TSI stream: RELEASE, then SHUTDOWN.
    pub fn close(&mut self, port: u32) {
        let host_port = self.stream(port).host_port;
        self.release(port, host_port);
        self.shutdown(port, 3);
    }

    #[track_caller]
    pub fn wait_reset(&mut self, port: u32) {
        self.wait("RST", |vm| vm.stream(port).is_reset().then_some(()));
    }
}

pub fn create_body(port: u32, family: u16, kind: u16) -> Vec<u8> {
    [&port.to_le_bytes()[..], &family.to_le_bytes(), &kind.to_le_bytes()].concat()
}

/// CONNECT and SENDTO_ADDR: the address in 128 bytes, the rest of them garbage.
pub fn connect_body(port: u32, addr: &[u8]) -> Vec<u8> {
    let len = u32::try_from(addr.len()).unwrap();
    let mut body = [&port.to_le_bytes()[..], &len.to_le_bytes(), addr].concat();
    body.resize(136, 0xa5);
    body
}

pub fn listen_body(port: u32, vm_port: u32, backlog: i32, addr: &[u8]) -> Vec<u8> {
    let len = u32::try_from(addr.len()).unwrap();
    let words = [
        port.to_le_bytes(),
        vm_port.to_le_bytes(),
        backlog.to_le_bytes(),
        len.to_le_bytes(),
    ]
    .concat();
    let mut body = [&words[..], addr].concat();
    body.resize(144, 0xa5);
    body
}

pub fn getname_body(port: u32, host_port: u32, peer: u32) -> Vec<u8> {
    [port.to_le_bytes(), host_port.to_le_bytes(), peer.to_le_bytes()].concat()
}

/// Linux's `sockaddr_in` or `sockaddr_in6`.
pub fn sockaddr(addr: SocketAddr) -> Vec<u8> {
    let port = addr.port().to_be_bytes();
    match addr {
        SocketAddr::V4(v4) => [&[2, 0][..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => [&[10, 0][..], &port, &[0; 4], &v6.ip().octets(), &[0; 4]].concat(),
    }
}

/// Linux's `sockaddr_un` as programs pass it: whole, 110 bytes.
pub fn sockaddr_un(path: &str) -> Vec<u8> {
    let mut addr = vec![1, 0];
    addr.extend(path.as_bytes());
    addr.resize(110, 0);
    addr
}

/// Bytes that differ at each place.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A blocking read must not hang a test.
pub fn with_timeout(stream: &std::net::TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
}

/// A device and an open stream through it to a real socket.
pub fn connected() -> (Vm, u32, TcpStream) {
    connected_to(Vm::new(inet_config()))
}

/// The same with a driver of the caller's choice.
pub fn connected_to(mut vm: Vm) -> (Vm, u32, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = vm.open_tcp(listener.local_addr().unwrap());
    let (host, _) = listener.accept().unwrap();
    with_timeout(&host);
    (vm, port, host)
}

pub fn fd_count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

pub fn poll_in(fd: impl AsFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}
