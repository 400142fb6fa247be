//! What the tests share: a driver of the console, on rings laid out by hand.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use test_guest::{Buffer, Guest, SplitRing, Used};
use virtio_console::{Direction, F_MULTIPORT, Handler, Output, Port, PortKind, Ports, Signals, TerminalSize, Watch};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use vm_memory::GuestAddress;

/// Queues of the control protocol.
pub(crate) const TO_DRIVER: usize = 2;
pub(crate) const FROM_DRIVER: usize = 3;

pub(crate) const DEVICE_READY: u16 = 0;
pub(crate) const PORT_READY: u16 = 3;
pub(crate) const PORT_OPEN: u16 = 6;

pub(crate) fn rx_of(port: usize) -> usize {
    if port == 0 { 0 } else { 2 + 2 * port }
}

pub(crate) fn tx_of(port: usize) -> usize {
    rx_of(port) + 1
}

pub(crate) fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe().unwrap()
}

/// A pipe that holds one page.
pub(crate) fn small_pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = pipe();
    rustix::pipe::fcntl_setpipe_size(&write, 4096).unwrap();
    (read, write)
}

/// All that is in the pipe now.
pub(crate) fn read_now(fd: &OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buf = vec![0; 1 << 16];
    while rustix::io::ioctl_fionread(fd).unwrap() > 0 {
        let count = rustix::io::read(fd, &mut buf).unwrap();
        bytes.extend(&buf[..count]);
    }
    bytes
}

/// Whether reading the pipe gives the end now, rather than waiting.
pub(crate) fn is_at_end(fd: &OwnedFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&now)).unwrap() == 1 && rustix::io::ioctl_fionread(fd).unwrap() == 0
}

pub(crate) fn write_all(fd: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = rustix::io::write(fd, bytes).unwrap();
        bytes = &bytes[count..];
    }
}

pub(crate) fn pipe_port(name: &str, input: Option<OwnedFd>, output: Option<OwnedFd>) -> Port {
    Port {
        name: name.into(),
        kind: PortKind::Pipe,
        input,
        output: output.map(Output::Fd),
    }
}

pub(crate) fn terminal_port(size: &TerminalSize, input: Option<OwnedFd>, output: Option<OwnedFd>) -> Port {
    let kind = PortKind::Terminal { size: size.clone() };
    Port {
        name: String::new(),
        kind,
        input,
        output: output.map(Output::Fd),
    }
}

/// Records what is watched. Closing a descriptor that is watched would show as one that stays.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) by_token: BTreeMap<u32, (i32, Direction)>,
    pub(crate) calls: usize,
}

impl Watch for Watched {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, direction: Direction) -> io::Result<()> {
        self.calls += 1;
        assert!(
            self.by_token.insert(token, (fd.as_raw_fd(), direction)).is_none(),
            "token {token} is watched already"
        );
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.calls += 1;
        let before = self.by_token.len();
        self.by_token.retain(|_, (watched, _)| *watched != fd.as_raw_fd());
        assert_eq!(self.by_token.len(), before - 1, "what is unwatched was watched once");
    }
}

/// Driver and device.
pub(crate) struct Bench {
    pub(crate) guest: Guest,
    pub(crate) queues: Vec<SplitRing>,
    pub(crate) handler: Handler,
    pub(crate) watched: Watched,
    buffers: HashMap<(usize, u32), Vec<Buffer>>,
}

impl Bench {
    /// With MULTIPORT.
    pub(crate) fn new(ports: Vec<Port>) -> Self {
        Self::with_features(ports, F_MULTIPORT)
    }

    pub(crate) fn with_features(ports: Vec<Port>, features: u64) -> Self {
        Self::with_ports(Ports::new(ports).unwrap(), features, Guest::new(64 << 20))
    }

    pub(crate) fn with_ports(ports: Ports, features: u64, mut guest: Guest) -> Self {
        let event_idx = features & 1 << 29 != 0;
        let ring = |size: &u16| {
            let ring = guest.ring(*size);
            if event_idx { ring.with_event_idx() } else { ring }
        };
        let queues: Vec<_> = ports.queue_sizes().iter().map(ring).collect();
        let rings = queues.iter().map(device_ring).collect();
        let handler = Handler::new(ports, rings, features);
        Self {
            guest,
            queues,
            handler,
            watched: Watched::default(),
            buffers: HashMap::new(),
        }
    }

    /// Does the part of the protocol up to a guest that has every port open, and forgets what the device said.
    pub(crate) fn connected(ports: Vec<Port>) -> Self {
        let count = u32::try_from(ports.len()).unwrap();
        let mut bench = Self::new(ports);
        bench.tell(0, DEVICE_READY, 1);
        for port in 0..count {
            bench.tell(port, PORT_READY, 1);
            bench.tell(port, PORT_OPEN, 1);
        }
        while !bench.hear().is_empty() {}
        bench
    }

    pub(crate) fn offer(&mut self, queue: usize, buffers: &[Buffer]) -> Option<u16> {
        let head = self.queues[queue].add(self.guest.mem(), buffers)?;
        self.buffers.insert((queue, u32::from(head)), buffers.to_vec());
        Some(head)
    }

    pub(crate) fn used(&mut self, queue: usize) -> Vec<(Used, Vec<u8>)> {
        let used = self.queues[queue].poll_all_used(self.guest.mem());
        used.into_iter()
            .map(|used| {
                let buffers = self.buffers.remove(&(queue, used.id)).unwrap_or_default();
                let writable: Vec<_> = buffers.into_iter().filter(|buffer| buffer.writable).collect();
                let mut bytes = self.guest.bytes_of_all(&writable);
                bytes.truncate(used.len as usize);
                (used, bytes)
            })
            .collect()
    }

    pub(crate) fn kick(&mut self) -> Signals {
        let guest = self.guest.clone();
        self.handler.notified(guest.mem(), &mut self.watched);
        self.handler.flush(guest.mem())
    }

    pub(crate) fn wake(&mut self, token: u32) -> Signals {
        let guest = self.guest.clone();
        self.handler.ready(token, guest.mem(), &mut self.watched);
        self.handler.flush(guest.mem())
    }

    /// Sends a control message and kicks.
    pub(crate) fn tell(&mut self, port: u32, event: u16, value: u16) -> Signals {
        self.tell_bytes(&message(port, event, value))
    }

    pub(crate) fn tell_bytes(&mut self, bytes: &[u8]) -> Signals {
        let buffer = self.guest.readable(bytes);
        self.offer(FROM_DRIVER, &[buffer])
            .expect("the device takes control messages at once");
        let signals = self.kick();
        assert_eq!(self.used(FROM_DRIVER).len(), 1, "a control message comes back at once");
        signals
    }

    /// Offers room for control messages and returns those that came.
    pub(crate) fn hear(&mut self) -> Vec<Vec<u8>> {
        while self.queues[TO_DRIVER].free_descriptors() > 0 {
            let room = self.guest.writable(256);
            self.offer(TO_DRIVER, &[room]);
        }
        self.kick();
        self.used(TO_DRIVER).into_iter().map(|(_, bytes)| bytes).collect()
    }

    pub(crate) fn send(&mut self, port: usize, bytes: &[u8]) -> Option<u16> {
        let buffer = self.guest.readable(bytes);
        self.offer(tx_of(port), &[buffer])
    }

    pub(crate) fn sent_back(&mut self, port: usize) -> usize {
        self.used(tx_of(port)).len()
    }

    pub(crate) fn offer_room(&mut self, port: usize, len: usize) -> Option<u16> {
        let room = self.guest.writable(len);
        self.offer(rx_of(port), &[room])
    }

    pub(crate) fn received(&mut self, port: usize) -> Vec<u8> {
        self.used(rx_of(port))
            .into_iter()
            .flat_map(|(_, bytes)| bytes)
            .collect()
    }
}

pub(crate) fn device_ring(ring: &SplitRing) -> Ring {
    let mut queue = Queue::new(ring.size()).unwrap();
    queue
        .try_set_desc_table_address(GuestAddress(ring.desc_table()))
        .unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(ring.avail_ring()))
        .unwrap();
    queue.try_set_used_ring_address(GuestAddress(ring.used_ring())).unwrap();
    queue.set_event_idx(ring.event_idx());
    queue.set_ready(true);
    Ring::new(queue)
}
