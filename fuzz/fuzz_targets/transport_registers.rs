//! A driver that reads and writes registers in any order, with shortcuts for what a good one does.
//!
//! Records of 8 bytes: a kind, an argument, a little-endian offset (2 bytes) and value (4 bytes). Kinds:
//! w write value to offset; r read argument bytes at offset; b write the value's first argument bytes to offset;
//! s the next status; f all offered features; q set up queue (argument & 3) with size 2^(argument >> 4) at page
//! (value) of three; k the worker takes a turn; m write value to memory at offset; p write value to the registers at
//! offset as to memory; h have device or host refuse things.

#![no_main]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use libfuzzer_sys::fuzz_target;
use test_guest::{Guest, MmioDriver, Registers, SplitRing, register as reg};
use virtio_ring::{Chain, Nearby, Ring};
use virtio_transport::{
    ActivateError, Activation, Disconnected, FIRST_INTERRUPT_REGISTER, Host, Interrupt, MMIO_LEN, Memory,
    MmioTransport, Poller, RegisterPage, Trigger, VirtioDevice, Worker,
};

const SIZES: [u16; 3] = [16, 1, 256];
const FEATURES: u64 = 1 << 28 | 1 << 29 | 0xff;

fuzz_target!(|input: &[u8]| {
    let guest = Guest::with_regions(&[(0, 0x8000), (0x9000, 0x7000)]);
    let page = Shared::new();
    let memory = RegisterPage::new(page.clone());
    let transport = MmioTransport::on_page(Front::default(), Side::default(), guest.shared_mem(), memory);
    let mut driver = MmioDriver::new(Block(transport));
    for record in input.as_chunks::<8>().0 {
        step(&guest, &page, &mut driver, *record);
        let transport = &mut driver.registers.0;
        assert_eq!(transport.is_active(), transport.host().worker.is_some());
    }
    let transport = &mut driver.registers.0;
    transport.shutdown(std::time::Duration::ZERO);
    assert_eq!(transport.device().started, transport.device().returned);
});

fn step(guest: &Guest, page: &Shared, driver: &mut MmioDriver<Block>, record: [u8; 8]) {
    let [kind, argument, o0, o1, v0, v1, v2, v3] = record;
    let offset = u64::from(u16::from_le_bytes([o0, o1]));
    let value = u32::from_le_bytes([v0, v1, v2, v3]);
    let len = usize::from(argument).min(16);
    match kind {
        b'w' => driver.write(offset, value),
        b'r' => driver.registers.read(offset, &mut vec![0; len]),
        b'b' => driver.registers.write(offset, &record[4..][..len.min(4)]),
        b's' => {
            let status = driver.status();
            let next = [1, 3, 0xb, 0xf].into_iter().find(|&bits| bits > status);
            driver.write(reg::STATUS, next.unwrap_or(0));
        }
        b'f' => driver.set_driver_features(FEATURES | 1 << 32),
        b'q' => {
            let page = u64::from(value & 0xff) << 12;
            let ring = SplitRing::at(page, page + 0x1000, page + 0x2000, 1 << (argument >> 4));
            driver.set_up_queue(u32::from(argument & 3), &ring);
        }
        b'k' => driver.registers.0.host_mut().turn(),
        b'm' if offset < 0x7ffc => guest.write(offset, &record[4..]),
        b'p' => page.set(offset.max(FIRST_INTERRUPT_REGISTER), value),
        b'h' => {
            driver.registers.0.device_mut().refuse = argument & 1 != 0;
            driver.registers.0.host_mut().refuse = argument & 2 != 0;
            driver.registers.0.host_mut().unconnected = argument & 4 != 0;
        }
        _ => {}
    }
}

/// Registers that are the driver's memory in part.
#[derive(Clone)]
struct Shared(Arc<[AtomicU32]>);

impl Shared {
    fn new() -> Self {
        Self((0..MMIO_LEN / 4).map(|_| AtomicU32::default()).collect())
    }

    fn set(&self, offset: u64, value: u32) {
        if let Some(word) = self.0.get(usize::try_from(offset / 4).unwrap()) {
            word.store(value, Ordering::Release);
        }
    }
}

impl AsRef<[AtomicU32]> for Shared {
    fn as_ref(&self) -> &[AtomicU32] {
        &self.0
    }
}

struct Block(MmioTransport<Front, Side>);

impl Registers for Block {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}

#[derive(Default)]
struct Front {
    refuse: bool,
    started: u32,
    returned: u32,
}

struct Back {
    mem: Memory,
    rings: Vec<Ring>,
    interrupt: Arc<Interrupt>,
    chain: Chain,
}

impl VirtioDevice for Front {
    type Worker = Back;

    fn device_id(&self) -> u32 {
        1
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, _data: &mut [u8]) {
        assert!(offset < 0xf00);
    }

    fn activate(&mut self, activation: Activation) -> Result<Back, ActivateError> {
        let Activation {
            mem,
            rings,
            features,
            interrupt,
        } = activation;
        assert_eq!(features & !(FEATURES | 1 << 32), 0);
        assert!(
            rings
                .iter()
                .zip(SIZES)
                .all(|(ring, max)| ring.size().is_power_of_two() && ring.size() <= max)
        );
        if self.refuse {
            return Err(ActivateError::QueueMissing(0));
        }
        self.started += 1;
        Ok(Back {
            mem,
            rings,
            interrupt,
            chain: Chain::new(),
        })
    }

    fn reset(&mut self, _worker: Back) {
        self.returned += 1;
    }
}

impl Worker for Back {
    fn notified(&mut self, _poller: &mut dyn Poller) {}
}

impl Back {
    fn turn(&mut self) {
        for ring in &mut self.rings {
            if serve(&self.mem, ring, &mut self.chain).is_err() {
                self.interrupt.needs_reset();
            }
        }
        self.interrupt.used_ring();
    }
}

fn serve(mem: &Memory, ring: &mut Ring, chain: &mut Chain) -> Result<(), virtio_ring::RingError> {
    for _ in 0..ring.size() {
        if !ring.pop(&Nearby::new(&**mem), chain)? {
            break;
        }
        ring.push_used(&Nearby::new(&**mem), chain.head(), 0)?;
    }
    ring.publish(&Nearby::new(&**mem))?;
    ring.enable_notification(&Nearby::new(&**mem))?;
    Ok(())
}

/// The host side.
#[derive(Default)]
struct Side {
    worker: Option<Back>,
    refuse: bool,
    unconnected: bool,
}

impl Side {
    fn turn(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.turn();
        }
    }
}

impl Host<Back> for Side {
    fn connect_interrupt(&mut self) -> io::Result<Box<dyn Trigger>> {
        if self.unconnected {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Box::new(Disconnected))
    }

    fn start(&mut self, worker: Back) -> Result<(), (Back, io::Error)> {
        assert!(self.worker.is_none());
        if self.refuse {
            return Err((worker, io::ErrorKind::OutOfMemory.into()));
        }
        self.worker = Some(worker);
        Ok(())
    }

    fn notify(&mut self, queue: u16) {
        assert!(usize::from(queue) < SIZES.len());
        self.turn();
    }

    fn stop(&mut self) -> Option<Back> {
        self.worker.take()
    }
}
