//! A guest's stream through the device to an echo service, both sides in memory: no VM, no socket, no event loop.
//!
//! `cargo run -p tessera-virtio-vsock-tsi --example echo -- some words`

use std::time::Duration;

use test_guest::{SplitRing, VsockPacket, VsockPeer};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use virtio_vsock_tsi::{Handler, NoLoop, Queues, Route, ServiceRead, StreamService, VsockConfig};
use vm_memory::GuestAddress;

const ECHO_PORT: u32 = 7;
const GUEST_PORT: u32 = 5000;

/// Gives back what it took.
#[derive(Default)]
struct Echo(Vec<u8>);

impl StreamService for Echo {
    fn write(&mut self, data: &[u8]) -> usize {
        self.0.extend(data);
        data.len()
    }

    fn read(&mut self, buf: &mut [u8]) -> ServiceRead {
        let len = self.0.len().min(buf.len());
        buf[..len].copy_from_slice(&self.0[..len]);
        self.0.drain(..len);
        if len == 0 {
            ServiceRead::Empty
        } else {
            ServiceRead::Bytes(len)
        }
    }
}

/// The device's side of a ring that the driver has laid out.
fn ring(driver: &SplitRing) -> Ring {
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
    Ring::new(queue)
}

struct Vm {
    driver: VsockPeer,
    handler: Handler,
    queues: Queues,
}

impl Vm {
    fn new() -> Vm {
        let echo = Route::Service {
            port: ECHO_PORT,
            service: Box::new(|| Some(Echo::default())),
        };
        let config = VsockConfig {
            routes: vec![echo],
            ..VsockConfig::default()
        };
        let mut driver = VsockPeer::new();
        driver.post_rx(16);
        let queues = Queues {
            rx: ring(&driver.rx),
            tx: ring(&driver.tx),
            event: ring(&driver.event),
        };
        let handler = config.into_handler().expect("one route cannot contradict itself");
        Vm {
            driver,
            handler,
            queues,
        }
    }

    /// The guest sends a packet; these are the packets that it gets.
    fn exchange(&mut self, op: u16, payload: &[u8]) -> Vec<VsockPacket> {
        self.driver.send(&VsockPacket {
            src_cid: 3,
            dst_cid: 2,
            src_port: GUEST_PORT,
            dst_port: ECHO_PORT,
            kind: 1,
            op,
            buf_alloc: 262_144,
            payload: payload.to_vec(),
            ..VsockPacket::default()
        });
        let mem = self.driver.guest().shared_mem();
        let served = self.handler.serve(Duration::ZERO, &mut self.queues, &*mem, &mut NoLoop);
        println!("guest sends op {op}, {} bytes; {served:?}", payload.len());
        self.driver.poll();
        self.driver.inbox.drain(..).collect()
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words = if words.is_empty() {
        "hello, host".to_owned()
    } else {
        words.join(" ")
    };
    let mut vm = Vm::new();
    for (op, payload) in [(1, &b""[..]), (5, words.as_bytes())] {
        for answer in vm.exchange(op, payload) {
            let text = String::from_utf8_lossy(&answer.payload);
            println!("  guest gets op {}, {text:?}", answer.op);
        }
    }
}
