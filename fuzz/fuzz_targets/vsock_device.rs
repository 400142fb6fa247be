//! A driver that does anything to the rings of a vsock device: packets of its choice in chains of any shape, bytes
//! anywhere in memory, event loop reports that make no sense, resets. The host's side lives in this process.
//!
//! Input: operations, each one byte and what it takes; see [`World::step`].

#![no_main]

use std::os::fd::OwnedFd;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use test_guest::{Descriptor, Guest, descriptor_flags};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use virtio_vsock_tsi::vsock_proto::wire::{Family, SocketName};
use virtio_vsock_tsi::vsock_proto::{Cid, Config, Errno, Muxer};
use virtio_vsock_tsi::{
    Backend, Connection, Handler, HostStream, Listener, NoLoop, Peer, Queues, Readiness, ServiceRead, StreamService,
    TsiFlags,
};
use vm_memory::{GuestAddress, GuestMemoryBackend};

const SIZE: u16 = 16;
const MEMORY: usize = 0x20000;
/// Three rings, a page for each part; the rest is for buffers.
const RINGS: [u64; 3] = [0x1000, 0x4000, 0x7000];
const BUFFERS: u64 = 0xa000;

/// Takes little at a time, gives back what it took, and ends when the guest does.
#[derive(Default)]
struct Echo {
    held: Vec<u8>,
    finished: bool,
}

impl StreamService for Echo {
    fn write(&mut self, data: &[u8]) -> usize {
        let room = 5000usize.saturating_sub(self.held.len()).min(data.len());
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

struct Host;

impl Host {
    fn echo() -> Connection {
        Connection {
            stream: HostStream::Service(Box::<Echo>::default()),
            established: true,
            peer: None,
        }
    }
}

impl Backend for Host {
    fn connect(&mut self, to: &SocketName) -> Result<Connection, Errno> {
        match to.inet() {
            Some(addr) if addr.port() % 2 == 0 => Ok(Host::echo()),
            _ => Err(Errno::ECONNREFUSED),
        }
    }

    fn connect_route(&mut self, _port: u32) -> Result<Connection, Errno> {
        Ok(Host::echo())
    }

    fn listen(&mut self, _at: &SocketName, _backlog: u16) -> Result<Listener, Errno> {
        Err(Errno::EADDRINUSE)
    }

    fn datagram(&mut self, _family: Family) -> Result<OwnedFd, Errno> {
        Err(Errno::EMFILE)
    }

    fn datagram_peer(&mut self, _name: &SocketName) -> Result<Peer, Errno> {
        Err(Errno::EACCES)
    }
}

struct World<'a> {
    input: &'a [u8],
    /// Whether the driver has accepted VIRTIO_F_EVENT_IDX.
    event_idx: bool,
    guest: Guest,
    handler: Handler<Host>,
    queues: Queues,
    avail: [u16; 3],
    now: Duration,
}

fuzz_target!(|input: &[u8]| {
    let mut config = Config::new(Cid::DEFAULT_GUEST);
    config.tsi = TsiFlags { inet: true, unix: true };
    config.stream_routes.insert(52);
    // Nothing of the input, so that seeds keep their meaning.
    let event_idx = input.len() % 2 == 1;
    let mut world = World {
        input,
        event_idx,
        guest: Guest::new(MEMORY),
        handler: Handler::new(Muxer::new(config), Host),
        queues: queues(event_idx),
        avail: [0; 3],
        now: Duration::ZERO,
    };
    while world.step().is_some() {}
});

fn queues(event_idx: bool) -> Queues {
    let [rx, tx, event] = RINGS.map(|base| {
        let mut queue = Queue::new(SIZE).expect("a power of two");
        queue.set_size(SIZE);
        queue.set_event_idx(event_idx);
        queue.try_set_desc_table_address(GuestAddress(base)).expect("aligned");
        queue
            .try_set_avail_ring_address(GuestAddress(base + 0x1000))
            .expect("aligned");
        queue
            .try_set_used_ring_address(GuestAddress(base + 0x2000))
            .expect("aligned");
        queue.set_ready(true);
        Ring::new(queue)
    });
    Queues { rx, tx, event }
}

impl World<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.input.split_first_chunk()?;
        self.input = rest;
        Some(*bytes)
    }

    fn step(&mut self) -> Option<()> {
        let [what] = self.take()?;
        match what % 8 {
            0 | 1 => self.packet()?,
            2 => self.receive_buffers()?,
            3 | 4 => self.serve(),
            5 => {
                let [a, b, len] = self.take()?;
                let bytes = self.input.get(..usize::from(len))?;
                let at = u64::from(u16::from_le_bytes([a, b])) * 2;
                if self.guest.mem().check_range(GuestAddress(at), bytes.len()) {
                    self.guest.write(at, bytes);
                }
                self.input = &self.input[usize::from(len)..];
            }
            6 => {
                let [a, b, c, d, flags, seconds] = self.take()?;
                let readiness = Readiness {
                    readable: flags & 1 != 0,
                    writable: flags & 2 != 0,
                    hangup: flags & 4 != 0,
                    error: flags & 8 != 0,
                };
                self.now += Duration::from_secs(seconds.into());
                self.handler
                    .socket_ready(self.now, u32::from_le_bytes([a, b, c, d]), readiness, &mut NoLoop);
                self.handler.deadline_passed(self.now, &mut NoLoop);
            }
            _ => {
                if what >= 0xf0 {
                    self.handler.transport_reset();
                }
                self.reset();
            }
        }
        Some(())
    }

    /// Ports, type, operation, flags, buffer and progress, then a length and how the chain is cut.
    fn packet(&mut self) -> Option<()> {
        let [src, dst, kind_op, flags, buf, fwd, len, cut] = self.take()?;
        let dst_port = match dst {
            0..=199 => u32::from(dst % 8) + 1024,
            200..=227 => 620,
            228..=249 => 52,
            _ => u32::from(dst),
        };
        let kind = [1u16, 3, 1, 2][usize::from(kind_op >> 6)];
        let payload_len = usize::from(len) * if cut & 1 == 0 { 1 } else { 256 };
        let body = self.input.get(..payload_len.min(self.input.len()).min(160))?.to_vec();
        self.input = &self.input[body.len()..];
        let mut bytes = [3u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
        bytes.extend(u32::from(src % 8).to_le_bytes());
        bytes.extend(dst_port.to_le_bytes());
        bytes.extend(u32::try_from(payload_len).ok()?.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(u16::from(kind_op & 15).to_le_bytes());
        bytes.extend(u32::from(flags).to_le_bytes());
        bytes.extend((u32::from(buf) << 12).to_le_bytes());
        bytes.extend((u32::from(fwd) << 4).to_le_bytes());
        bytes.extend(&body);
        self.guest.write(BUFFERS, &bytes);
        let total = 44 + payload_len;
        let cut = usize::from(cut).min(total);
        self.offer(1, &[(0, cut, false), (cut, total - cut, false)]);
        self.serve();
        Some(())
    }

    fn receive_buffers(&mut self) -> Option<()> {
        let [len, count] = self.take()?;
        for _ in 0..count % 16 {
            self.offer(
                0,
                &[
                    (0x1000, usize::from(len), true),
                    (0x2000, 3776 * usize::from(len % 3), true),
                ],
            );
        }
        self.offer(2, &[(0x8000, usize::from(len % 8), true)]);
        Some(())
    }

    /// Makes a chain available, in the place of whatever was in its descriptors.
    fn offer(&mut self, ring: usize, parts: &[(usize, usize, bool)]) {
        let base = RINGS[ring];
        let mem = self.guest.mem();
        let first = self.avail[ring] % (SIZE / 2) * 2;
        for (index, &(at, len, writable)) in (first..).zip(parts) {
            let last = usize::from(index - first) + 1 == parts.len();
            let flags =
                if writable { descriptor_flags::WRITE } else { 0 } | if last { 0 } else { descriptor_flags::NEXT };
            let addr = BUFFERS + at as u64;
            let len = u32::try_from(len).expect("short");
            Descriptor {
                addr,
                len,
                flags,
                next: index + 1,
            }
            .write_to(mem, base + 16 * u64::from(index));
        }
        let avail = base + 0x1000;
        self.guest
            .write(avail + 4 + 2 * u64::from(self.avail[ring] % SIZE), &first.to_le_bytes());
        self.avail[ring] = self.avail[ring].wrapping_add(1);
        self.guest.write(avail + 2, &self.avail[ring].to_le_bytes());
    }

    fn serve(&mut self) {
        let served = self
            .handler
            .serve(self.now, &mut self.queues, self.guest.mem(), &mut NoLoop);
        if served.is_err() {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.handler.reset();
        assert!(self.handler.muxer().is_empty());
        self.guest.write(RINGS[0], &[0; 0x9000]);
        self.queues = queues(self.event_idx);
        self.avail = [0; 3];
    }
}
