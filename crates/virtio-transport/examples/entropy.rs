//! An entropy source (virtio 1.3, 5.4), end to end: a driver starts it, asks for 32 bytes and gets them.
//!
//!     cargo run -p tessera-virtio-transport --example entropy

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use test_guest::{Access, Guest, MmioDriver};
use virtio_ring::{Chain, Nearby, RingError};
use virtio_transport::{
    ActivateError, Activation, Disconnected, Host, Interest, MmioTransport, Poller, Trigger, VirtioDevice, Worker,
};

struct Entropy {
    source: Option<File>,
}

struct Running {
    source: File,
    activation: Activation,
    chain: Chain,
}

impl VirtioDevice for Entropy {
    type Worker = Running;

    fn device_id(&self) -> u32 {
        4
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[64]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<Running, ActivateError> {
        let source = match self.source.take() {
            Some(source) => source,
            None => File::open("/dev/urandom").map_err(|source| ActivateError::Host {
                what: "open the source of entropy",
                source,
            })?,
        };
        Ok(Running {
            source,
            activation,
            chain: Chain::new(),
        })
    }

    fn reset(&mut self, worker: Running) {
        self.source = Some(worker.source);
    }
}

impl Running {
    fn fill(&mut self) -> Result<bool, RingError> {
        let mem = &Nearby::new(&*self.activation.mem);
        let Some(ring) = self.activation.rings.first_mut() else {
            return Ok(false);
        };
        let mut bytes = [0; 256];
        while ring.pop(mem, &mut self.chain)? {
            let len = self.chain.writable_len().min(bytes.len());
            let filled =
                self.source.read_exact(&mut bytes[..len]).is_ok() && self.chain.write_at(mem, 0, &bytes[..len]).is_ok();
            ring.push_used(
                mem,
                self.chain.head(),
                if filled { u32::try_from(len).unwrap_or(0) } else { 0 },
            )?;
        }
        ring.publish(mem)
    }
}

impl Worker for Running {
    fn notified(&mut self, _poller: &mut dyn Poller) {
        match self.fill() {
            Ok(true) => self.activation.interrupt.used_ring(),
            Ok(false) => {}
            Err(_) => self.activation.interrupt.needs_reset(),
        }
    }
}

/// A monitor that serves each notification on the spot, on the thread of the vCPU.
#[derive(Default)]
struct OnTheSpot {
    worker: Option<Running>,
}

impl Host<Running> for OnTheSpot {
    fn connect_interrupt(&mut self) -> io::Result<Box<dyn Trigger>> {
        Ok(Box::new(Disconnected))
    }

    fn start(&mut self, worker: Running) -> Result<(), (Running, io::Error)> {
        self.worker = Some(worker);
        Ok(())
    }

    fn notify(&mut self, _queue: u16) {
        if let Some(worker) = &mut self.worker {
            worker.notified(&mut NoDescriptors);
            worker.flush(&mut NoDescriptors);
        }
    }

    fn stop(&mut self) -> Option<Running> {
        self.worker.take()
    }
}

/// This device waits for no descriptor.
struct NoDescriptors;

impl Poller for NoDescriptors {
    fn add(&mut self, _: BorrowedFd<'_>, _: u32, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn modify(&mut self, _: BorrowedFd<'_>, _: u32, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&mut self, _: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn main() {
    let mut guest = Guest::new(1 << 20);
    let mut ring = guest.ring(64);
    let mut transport = MmioTransport::new(Entropy { source: None }, OnTheSpot::default(), guest.shared_mem());
    let mut driver = MmioDriver::new(|access: Access<'_>| match access {
        Access::Read(offset, data) => transport.read(offset, data),
        Access::Write(offset, data) => transport.write(offset, data),
    });

    driver.start(0, &[&ring]);
    let room = guest.writable(32);
    ring.add(guest.mem(), &[room]).expect("a free descriptor");
    driver.notify(0);

    assert_eq!(driver.take_interrupt(), 1);
    let used = ring.poll_used(guest.mem()).expect("a used buffer");
    println!("{} bytes of entropy: {:02x?}", used.len, guest.bytes_of(room));
}
