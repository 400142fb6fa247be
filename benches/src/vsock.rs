//! vsock without a VM: rings in memory, nothing behind the device that costs anything, and a muxer with many connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use test_guest::{SplitRing, VsockPacket, VsockPeer};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use virtio_vsock_tsi::vsock_proto::wire::{Header, Op, PacketType};
use virtio_vsock_tsi::vsock_proto::{Config, Muxer, ProxyId, StreamRead, Transmit};
use virtio_vsock_tsi::{
    Cid, Handler, Limits, NoLoop, Queues, Readiness, Route, ServiceRead, StreamService, VsockConfig,
};
use vm_memory::GuestAddress;

/// What Linux posts for each packet to it, in bytes.
pub const LINUX_RX_LEN: usize = 3776;
const GUEST_PORT: u32 = 5000;
const HOST_PORT: u32 = 7;
/// What the event loop is told for the first stream of a fresh device.
const FIRST_TOKEN: u32 = 0;
const NOW: Duration = Duration::ZERO;

/// The device's side of a ring that the driver has laid out.
///
/// # Panics
/// When the ring is no ring, which is a defect of the bench.
#[must_use]
pub fn queue(driver: &SplitRing) -> Queue {
    let mut queue = Queue::new(driver.size()).expect("a power of two");
    queue
        .try_set_desc_table_address(GuestAddress(driver.desc_table()))
        .expect("aligned");
    queue
        .try_set_avail_ring_address(GuestAddress(driver.avail_ring()))
        .expect("aligned");
    queue
        .try_set_used_ring_address(GuestAddress(driver.used_ring()))
        .expect("aligned");
    queue.set_ready(true);
    queue
}

/// A stream packet of the guest's.
#[must_use]
pub fn packet(op: u16, payload: Vec<u8>) -> VsockPacket {
    VsockPacket {
        src_cid: 3,
        dst_cid: 2,
        src_port: GUEST_PORT,
        dst_port: HOST_PORT,
        kind: 1,
        op,
        buf_alloc: 262_144,
        payload,
        ..VsockPacket::default()
    }
}

/// Takes everything, and gives `budget` bytes in pieces of `piece`, none of which it writes.
struct Null {
    budget: Arc<AtomicUsize>,
    piece: usize,
}

impl StreamService for Null {
    fn write(&mut self, data: &[u8]) -> usize {
        data.len()
    }

    fn read(&mut self, buf: &mut [u8]) -> ServiceRead {
        let left = self.budget.load(Ordering::Relaxed);
        let len = left.min(self.piece).min(buf.len());
        self.budget.store(left - len, Ordering::Relaxed);
        if len == 0 {
            ServiceRead::Empty
        } else {
            ServiceRead::Bytes(len)
        }
    }
}

/// A handler with one open stream. Boxed, so that a bench does not count moving it.
pub struct Rig {
    driver: VsockPeer,
    handler: Handler,
    queues: Queues,
    budget: Arc<AtomicUsize>,
}

impl Rig {
    /// The host's end of the stream gives bytes in pieces of `piece`.
    ///
    /// # Panics
    /// When the stream does not open, which is a defect of the bench.
    #[must_use]
    pub fn new(piece: usize) -> Box<Rig> {
        let budget = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&budget);
        let service = Route::Service {
            port: HOST_PORT,
            service: Box::new(move || {
                let budget = Arc::clone(&theirs);
                Some(Null { budget, piece })
            }),
        };
        let config = VsockConfig {
            routes: vec![service],
            ..VsockConfig::default()
        };
        let mut driver = VsockPeer::new();
        driver.post_rx(128);
        let queues = Queues {
            rx: Ring::new(queue(&driver.rx)),
            tx: Ring::new(queue(&driver.tx)),
            event: Ring::new(queue(&driver.event)),
        };
        let handler = config.into_handler().expect("one route cannot contradict itself");
        let mut rig = Box::new(Rig {
            driver,
            handler,
            queues,
            budget,
        });
        rig.driver.send(&packet(1, Vec::new()));
        rig.serve();
        rig.driver.poll();
        assert!(rig.driver.inbox.iter().any(|packet| packet.op == 2), "a RESPONSE");
        rig
    }

    /// The guest has sent so many packets with so many bytes each; the first pass, with its allocations, is over.
    #[must_use]
    pub fn with_sent(packets: usize, len: usize) -> Box<Rig> {
        let mut rig = Rig::new(0);
        for _ in 0..2 {
            rig.serve();
            for _ in 0..packets {
                rig.driver.send(&packet(5, vec![7; len]));
            }
        }
        rig
    }

    /// The host has so many bytes for the guest, in such pieces; the first pass, with its allocations, is over.
    #[must_use]
    pub fn with_waiting(bytes: usize, piece: usize) -> Box<Rig> {
        let mut rig = Rig::new(piece);
        for _ in 0..2 {
            rig.serve();
            rig.driver.poll();
            rig.budget.store(bytes, Ordering::Relaxed);
            let readable = Readiness {
                readable: true,
                ..Readiness::default()
            };
            rig.handler.socket_ready(NOW, FIRST_TOKEN, readable, &mut NoLoop);
        }
        rig
    }

    /// One pass of the device.
    ///
    /// # Panics
    /// When a ring is broken, which is a defect of the bench.
    pub fn serve(&mut self) {
        let mem = self.driver.guest().shared_mem();
        self.handler
            .serve(NOW, &mut self.queues, &*mem, &mut NoLoop)
            .expect("sound rings");
    }

    /// Payload bytes so far, from the guest and to it.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let stats = self.handler.stats();
        (stats.bytes_from_guest.get(), stats.bytes_to_guest.get())
    }
}

/// A muxer with open connections of the host's clients, nothing to do for any, and one of them. Boxed as well.
pub struct Crowd {
    mux: Muxer,
    one: ProxyId,
    header: Header,
}

impl Crowd {
    /// With so many connections.
    ///
    /// # Panics
    /// When one does not open, which is a defect of the bench.
    #[must_use]
    pub fn new(connections: u32) -> Box<Crowd> {
        let mut config = Config::new(Cid::DEFAULT_GUEST);
        config.limits = Limits {
            proxies: connections as usize,
            buffered_bytes: 1 << 30,
            ..Limits::default()
        };
        let mut mux = Muxer::new(config);
        let opened = (0..connections).map(|port| open(&mut mux, 1024 + port));
        let all: Vec<_> = opened.collect();
        let (one, header) = all[all.len() / 2];
        Box::new(Crowd { mux, one, header })
    }

    /// Asks for something to send when there is nothing.
    pub fn poll_idle(&mut self) -> bool {
        self.mux.wants_transmit() || self.mux.poll_transmit().is_some()
    }

    /// One host has 100 bytes; asks what to send until there is nothing more.
    pub fn poll_ready(&mut self) -> Option<Header> {
        self.mux.readable(self.one);
        let mut sent = None;
        while let Some(transmit) = self.mux.poll_transmit() {
            if let Transmit::Stream { id, .. } = transmit {
                sent = self.mux.stream_header(id, 100);
                self.mux.stream_read(id, StreamRead::Empty);
            }
        }
        sent
    }

    /// The guest sends 100 bytes to that host.
    pub fn receive(&mut self) {
        self.mux.receive(NOW, &self.header, 100, &[]);
        self.mux.flushed(self.one, 100);
    }

    /// When a time-out is due, of which there is none.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.mux.next_deadline()
    }
}

/// Opens a connection to a port of the guest's; the header that its data has.
fn open(mux: &mut Muxer, port: u32) -> (ProxyId, Header) {
    let id = mux.open_to_guest(NOW, port).expect("within the limits");
    let Some(Transmit::Packet { header: request, .. }) = mux.poll_transmit() else {
        panic!("a REQUEST goes out");
    };
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: port,
        dst_port: request.src_port,
        len: 0,
        kind: PacketType::Stream,
        op: Op::Response,
        flags: 0,
        buf_alloc: 262_144,
        fwd_cnt: 0,
    };
    mux.receive(NOW, &header, 0, &[]);
    while mux.poll_action().is_some() {}
    let data = Header {
        len: 100,
        op: Op::Rw,
        ..header
    };
    (id, data)
}
