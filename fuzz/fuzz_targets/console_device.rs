//! A console under any driver and any host: control messages, chains of any shape, raw rings, streams that end.
//!
//! As long as the driver keeps to the rules of the rings, what goes in at one end must be what comes out at the other.

#![no_main]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustix::pipe::PipeFlags;
use test_guest::{Buffer, Descriptor, Guest, SplitRing};
use virtio_console::{Direction, Handler, Output, Port, PortKind, Ports, Size, TerminalSize, Watch};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use vm_memory::GuestAddress;

const PORTS: usize = 3;
const TO_DRIVER: usize = 2;
const FROM_DRIVER: usize = 3;

#[derive(Arbitrary, Debug)]
struct Input {
    features: u8,
    script: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Message {
        port: u8,
        event: u8,
        value: bool,
    },
    RawMessage(Vec<u8>),
    RoomForMessages {
        len: u8,
    },
    Send {
        port: u8,
        len: u16,
        cut: u16,
    },
    Room {
        port: u8,
        lens: [u8; 2],
    },
    HostWrites {
        port: u8,
        len: u16,
    },
    HostReads {
        port: u8,
    },
    HostCloses {
        port: u8,
        input: bool,
    },
    Resize {
        cols: u16,
        rows: u16,
    },
    Kick,
    Wake {
        token: u8,
    },
    Reset,
    RawDescriptor {
        queue: u8,
        index: u8,
        addr: u32,
        len: u32,
        flags: u8,
        next: u8,
    },
    RawHead {
        queue: u8,
        head: u8,
    },
    RawIndex {
        queue: u8,
        idx: u16,
    },
}

fuzz_target!(|input: Input| {
    let mut world = World::new(u64::from(input.features));
    for step in input.script.iter().take(400) {
        world.step(step);
    }
    world.settle();
});

struct World {
    guest: Guest,
    features: u64,
    queues: Vec<SplitRing>,
    handler: Option<Handler>,
    watched: Watched,
    size: TerminalSize,
    ends: Vec<Ends>,
    rooms: HashMap<(usize, u32), Vec<Buffer>>,
    /// Rings were written by hand or lost in a reset: contents are anything.
    wild: bool,
}

/// The host's ends of one port, and what went through.
struct Ends {
    to_input: Option<OwnedFd>,
    from_output: Option<OwnedFd>,
    written: Vec<u8>,
    received: Vec<u8>,
    sent: Vec<u8>,
    read: Vec<u8>,
}

#[derive(Default)]
struct Watched(HashMap<u32, i32>);

impl Watch for Watched {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, _: Direction) -> io::Result<()> {
        assert_eq!(self.0.insert(token, fd.as_raw_fd()), None);
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        let before = self.0.len();
        self.0.retain(|_, watched| *watched != fd.as_raw_fd());
        assert_eq!(self.0.len(), before - 1);
    }
}

impl World {
    fn new(features: u64) -> Self {
        let size = TerminalSize::default();
        let mut ends = Vec::new();
        let mut ports = Vec::new();
        for index in 0..PORTS {
            let (input, to_input) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK).unwrap();
            // A socket: the fuzzer's main function does not ignore SIGPIPE as that of Rust does.
            let (from_output, output) = UnixStream::pair().unwrap();
            from_output.set_nonblocking(true).unwrap();
            rustix::net::sockopt::set_socket_send_buffer_size(&output, 4096).unwrap();
            let kind = if index == 0 {
                PortKind::Terminal { size: size.clone() }
            } else {
                PortKind::Pipe
            };
            let name = if index == 0 {
                String::new()
            } else {
                format!("port-{index}")
            };
            ports.push(Port {
                name,
                kind,
                input: Some(input),
                output: Some(Output::Fd(output.into())),
            });
            ends.push(Ends {
                to_input: Some(to_input),
                from_output: Some(from_output.into()),
                written: Vec::new(),
                received: Vec::new(),
                sent: Vec::new(),
                read: Vec::new(),
            });
        }
        // MULTIPORT or not, EVENT_IDX or not.
        let features = (features & 1) << 1 | (features >> 1 & 1) << 29;
        let mut world = Self {
            guest: Guest::new(2 << 20),
            features,
            queues: Vec::new(),
            handler: None,
            watched: Watched::default(),
            size,
            ends,
            rooms: HashMap::new(),
            wild: false,
        };
        world.activate(Ports::new(ports).unwrap());
        world
    }

    fn activate(&mut self, ports: Ports) {
        self.guest = Guest::new(2 << 20);
        self.watched = Watched::default();
        self.rooms.clear();
        let event_idx = self.features & 1 << 29 != 0;
        let sizes = ports.queue_sizes().to_vec();
        self.queues = sizes
            .iter()
            .map(|size| {
                let ring = self.guest.ring(*size);
                if event_idx { ring.with_event_idx() } else { ring }
            })
            .collect();
        let rings = self.queues.iter().map(device_ring).collect();
        self.handler = Some(Handler::new(ports, rings, self.features));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Message { port, event, value } => {
                let message = [port % 5, 0, 0, 0, event % 9, 0, u8::from(value), 0];
                self.offer_bytes(FROM_DRIVER, &message);
            }
            Step::RawMessage(ref bytes) => self.offer_bytes(FROM_DRIVER, bytes.get(..64).unwrap_or(bytes)),
            Step::RoomForMessages { len } => self.offer_room(TO_DRIVER, &[usize::from(len)]),
            Step::Send { port, len, cut } => self.send(usize::from(port) % PORTS, len % 8192, cut),
            Step::Room { port, lens } => self.offer_room(rx_of(usize::from(port) % PORTS), &lens.map(usize::from)),
            Step::HostWrites { port, len } => self.host_writes(usize::from(port) % PORTS, usize::from(len % 8192)),
            Step::HostReads { port } => self.host_reads(usize::from(port) % PORTS),
            Step::HostCloses { port, input } => {
                let ends = &mut self.ends[usize::from(port) % PORTS];
                if input {
                    ends.to_input = None
                } else {
                    ends.from_output = None
                }
            }
            Step::Resize { cols, rows } => self.size.set(Size { cols, rows }),
            Step::Kick => self.kick(),
            Step::Wake { token } => self.wake(u32::from(token)),
            Step::Reset => self.reset(),
            Step::RawDescriptor {
                queue,
                index,
                addr,
                len,
                flags,
                next,
            } => {
                let queue = self.raw_queue(queue);
                let descriptor = Descriptor {
                    addr: addr.into(),
                    len,
                    flags: flags.into(),
                    next: next.into(),
                };
                queue.set_descriptor(self.guest.mem(), u16::from(index) % queue.size(), descriptor);
                self.wild = true;
            }
            Step::RawHead { queue, head } => {
                let queue = usize::from(queue) % self.queues.len();
                self.queues[queue].offer_head(self.guest.mem(), head.into());
                self.wild = true;
            }
            Step::RawIndex { queue, idx } => {
                let queue = self.raw_queue(queue);
                queue.set_avail_idx(self.guest.mem(), idx);
                self.wild = true;
            }
        }
    }

    fn raw_queue(&self, queue: u8) -> &SplitRing {
        &self.queues[usize::from(queue) % self.queues.len()]
    }

    fn offer(&mut self, queue: usize, buffers: &[Buffer]) -> bool {
        let Some(head) = self.queues[queue].add(self.guest.mem(), buffers) else {
            return false;
        };
        self.rooms.insert((queue, head.into()), buffers.to_vec());
        true
    }

    fn has_memory_for(&self, queue: usize, descriptors: usize) -> bool {
        self.queues[queue].free_descriptors() >= descriptors && self.guest.clone().alloc_fits()
    }

    fn offer_bytes(&mut self, queue: usize, bytes: &[u8]) {
        if self.has_memory_for(queue, 1) {
            let buffer = self.guest.readable(bytes);
            self.offer(queue, &[buffer]);
        }
    }

    fn offer_room(&mut self, queue: usize, lens: &[usize]) {
        if self.has_memory_for(queue, lens.len()) {
            let buffers = self.guest.writable_pieces(lens);
            self.offer(queue, &buffers);
        }
    }

    fn send(&mut self, port: usize, len: u16, cut: u16) {
        if !self.has_memory_for(tx_of(port), 2) {
            return;
        }
        let start = self.ends[port].sent.len();
        let bytes: Vec<u8> = (0..usize::from(len)).map(|at| (start + at).to_le_bytes()[0]).collect();
        let pieces = self.guest.readable_pieces(&bytes, &[usize::from(cut.min(len))]);
        if self.offer(tx_of(port), &pieces) {
            self.ends[port].sent.extend(bytes);
        }
    }

    fn host_writes(&mut self, port: usize, len: usize) {
        let ends = &mut self.ends[port];
        let start = ends.written.len();
        let bytes: Vec<u8> = (0..len).map(|at| (start + at).to_be_bytes()[7]).collect();
        if let Some(fd) = &ends.to_input
            && let Ok(count) = rustix::io::write(fd, &bytes)
        {
            ends.written.extend(&bytes[..count]);
        }
    }

    fn host_reads(&mut self, port: usize) {
        let ends = &mut self.ends[port];
        let mut bytes = [0; 4096];
        while let Some(fd) = &ends.from_output
            && let Ok(count @ 1..) = rustix::io::read(fd, &mut bytes)
        {
            ends.read.extend(&bytes[..count]);
        }
        if !self.wild {
            assert!(ends.sent.starts_with(&ends.read), "the host reads what the guest sent");
        }
    }

    fn kick(&mut self) {
        if let Some(handler) = &mut self.handler {
            handler.notified(self.guest.mem(), &mut self.watched);
            handler.flush(self.guest.mem());
        }
        self.collect();
    }

    fn wake(&mut self, token: u32) {
        if let Some(handler) = &mut self.handler {
            handler.ready(token, self.guest.mem(), &mut self.watched);
            handler.flush(self.guest.mem());
        }
        self.collect();
    }

    fn reset(&mut self) {
        if let Some(handler) = self.handler.take() {
            // What was on its way is lost, whatever it was.
            self.wild = true;
            self.activate(handler.into_ports());
        }
    }

    fn collect(&mut self) {
        if self.wild {
            return;
        }
        for port in 0..PORTS {
            let queue = rx_of(port);
            for used in self.queues[queue].poll_all_used(self.guest.mem()) {
                let buffers = self
                    .rooms
                    .remove(&(queue, used.id))
                    .expect("what comes back was offered");
                let mut bytes = self.guest.bytes_of_all(&buffers);
                assert!(used.len as usize <= bytes.len());
                bytes.truncate(used.len as usize);
                let ends = &mut self.ends[port];
                ends.received.extend(bytes);
                assert!(
                    ends.written.starts_with(&ends.received),
                    "the guest reads what the host wrote"
                );
            }
            self.queues[tx_of(port)].poll_all_used(self.guest.mem());
        }
        for queue in [TO_DRIVER, FROM_DRIVER] {
            self.queues[queue].poll_all_used(self.guest.mem());
        }
    }

    /// With nothing new the device comes to rest.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.kick();
            if !self.handler.as_ref().is_some_and(Handler::wants_again) {
                return;
            }
            (0..PORTS).for_each(|port| self.host_reads(port));
        }
        panic!("the device goes on for ever");
    }
}

trait HasRoom {
    fn alloc_fits(self) -> bool;
}

impl HasRoom for Guest {
    /// The allocator panics when memory is full; half of it must be free.
    fn alloc_fits(mut self) -> bool {
        self.alloc(1, 1) < 1 << 20
    }
}

fn rx_of(port: usize) -> usize {
    if port == 0 { 0 } else { 2 + 2 * port }
}

fn tx_of(port: usize) -> usize {
    rx_of(port) + 1
}

fn device_ring(ring: &SplitRing) -> Ring {
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
