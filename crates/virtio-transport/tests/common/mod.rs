//! A device that records, a host that records, and a driver to both.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use test_guest::{Guest, MmioDriver, Registers, SplitRing};
use virtio_ring::Ring;
use virtio_transport::{
    ActivateError, Activation, Host, Interrupt, MMIO_LEN, MmioTransport, Poller, RegisterPage, SharedMemory, Trigger,
    VirtioDevice, Worker,
};
use vm_memory::GuestAddress;

pub(crate) const DEVICE_ID: u32 = 42;
pub(crate) const FEATURES: u64 = 0b101 | 1 << 28 | 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const QUEUE_SIZES: [u16; 2] = [16, 8];

#[derive(Default)]
pub(crate) struct TestDevice {
    pub(crate) config: Vec<u8>,
    pub(crate) activations: u32,
    /// Given back by [`VirtioDevice::reset`]: the numbers of the activations.
    pub(crate) returned: Vec<u32>,
    /// How long each worker that came back was told to finish within, if it was.
    pub(crate) finished: Vec<Option<Duration>>,
    pub(crate) refuse: bool,
}

pub(crate) struct TestWorker {
    pub(crate) number: u32,
    pub(crate) rings: Vec<Ring>,
    pub(crate) features: u64,
    pub(crate) interrupt: Arc<Interrupt>,
    pub(crate) finished: Option<Duration>,
}

impl Worker for TestWorker {
    fn notified(&mut self, _poller: &mut dyn Poller) {}

    fn finish(&mut self, patience: Duration) {
        self.finished = Some(patience);
    }
}

impl VirtioDevice for TestDevice {
    type Worker = TestWorker;

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.config.get(offset..))
            .unwrap_or_default();
        for (byte, &value) in data.iter_mut().zip(rest) {
            *byte = value;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.config.get_mut(offset..))
            .unwrap_or_default();
        for (byte, &value) in rest.iter_mut().zip(data) {
            *byte = value;
        }
    }

    fn shared_memory(&self, id: u32) -> Option<SharedMemory> {
        (id == 3).then_some(SharedMemory {
            addr: GuestAddress(0x1_2345_6789),
            len: 0x2_0000_0001,
        })
    }

    fn activate(&mut self, activation: Activation) -> Result<TestWorker, ActivateError> {
        let Activation {
            rings,
            features,
            interrupt,
            ..
        } = activation;
        if self.refuse {
            return Err(ActivateError::QueueMissing(1));
        }
        self.activations += 1;
        Ok(TestWorker {
            number: self.activations,
            rings,
            features,
            interrupt,
            finished: None,
        })
    }

    fn reset(&mut self, worker: TestWorker) {
        self.returned.push(worker.number);
        self.finished.push(worker.finished);
    }
}

/// The host side: what it was asked, and what it shall refuse.
#[derive(Default)]
pub(crate) struct TestHost {
    pub(crate) worker: Option<TestWorker>,
    pub(crate) connected: bool,
    pub(crate) edges: Arc<AtomicU32>,
    pub(crate) calls: Vec<&'static str>,
    pub(crate) notified: Vec<u16>,
    pub(crate) acknowledged: u32,
    pub(crate) refuse_interrupt: bool,
    pub(crate) refuse_start: bool,
    pub(crate) lose_worker: bool,
}

struct Edges(Arc<AtomicU32>);

impl Trigger for Edges {
    fn trigger(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Host<TestWorker> for TestHost {
    fn connect_interrupt(&mut self) -> io::Result<Box<dyn Trigger>> {
        assert!(!self.connected, "connected twice");
        self.calls.push("connect");
        if self.refuse_interrupt {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.connected = true;
        Ok(Box::new(Edges(Arc::clone(&self.edges))))
    }

    fn start(&mut self, worker: TestWorker) -> Result<(), (TestWorker, io::Error)> {
        assert!(
            self.connected && self.worker.is_none(),
            "started before connected, or twice"
        );
        self.calls.push("start");
        if self.refuse_start {
            return Err((worker, io::ErrorKind::OutOfMemory.into()));
        }
        self.worker = Some(worker);
        Ok(())
    }

    fn notify(&mut self, queue: u16) {
        assert!(self.worker.is_some(), "notified while not running");
        self.notified.push(queue);
    }

    fn acknowledged(&mut self) {
        assert!(self.worker.is_some(), "acknowledged while not running");
        self.acknowledged += 1;
    }

    fn stop(&mut self) -> Option<TestWorker> {
        self.calls.push("stop");
        self.connected = false;
        self.worker.take().filter(|_| !self.lose_worker)
    }
}

/// What a monitor would map into the guest.
#[derive(Clone)]
pub(crate) struct Shared(Arc<[AtomicU32]>);

impl Shared {
    pub(crate) fn new() -> Self {
        Self((0..MMIO_LEN / 4).map(|_| AtomicU32::default()).collect())
    }

    pub(crate) fn word(&self, offset: u64) -> u32 {
        self.at(offset).load(Ordering::Acquire)
    }

    /// As a driver whose memory it is.
    pub(crate) fn set(&self, offset: u64, value: u32) {
        self.at(offset).store(value, Ordering::Release);
    }

    fn at(&self, offset: u64) -> &AtomicU32 {
        &self.0[usize::try_from(offset / 4).unwrap()]
    }
}

impl AsRef<[AtomicU32]> for Shared {
    fn as_ref(&self) -> &[AtomicU32] {
        &self.0
    }
}

pub(crate) type Transport = MmioTransport<TestDevice, TestHost>;

/// The register block as the driver sees it.
pub(crate) struct Block(pub(crate) Transport);

impl Registers for Block {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}

pub(crate) struct Setup {
    pub(crate) guest: Guest,
    pub(crate) rings: [SplitRing; 2],
    pub(crate) driver: MmioDriver<Block>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::with_host(TestHost::default())
    }

    pub(crate) fn with_host(host: TestHost) -> Self {
        Self::with_guest(Guest::new(0x10000), host)
    }

    pub(crate) fn with_guest(guest: Guest, host: TestHost) -> Self {
        Self::on_page(guest, host, RegisterPage::private())
    }

    pub(crate) fn on_page(mut guest: Guest, host: TestHost, page: RegisterPage) -> Self {
        let device = TestDevice {
            config: (1..=12).collect(),
            ..TestDevice::default()
        };
        let transport = MmioTransport::on_page(device, host, guest.shared_mem(), page);
        let rings = QUEUE_SIZES.map(|size| guest.ring(size));
        Self {
            guest,
            rings,
            driver: MmioDriver::new(Block(transport)),
        }
    }

    /// As a driver that does everything right.
    pub(crate) fn started() -> Self {
        let mut setup = Self::new();
        setup.start();
        setup
    }

    pub(crate) fn start(&mut self) {
        self.driver.start(FEATURES, &[&self.rings[0], &self.rings[1]]);
    }

    /// Up to FEATURES_OK, with both queues set up.
    pub(crate) fn configured(mut self) -> Self {
        self.driver.negotiate(FEATURES);
        for (index, ring) in (0..).zip(&self.rings) {
            self.driver.set_up_queue(index, ring);
        }
        self
    }

    pub(crate) fn transport(&mut self) -> &mut Transport {
        &mut self.driver.registers.0
    }

    pub(crate) fn host(&mut self) -> &mut TestHost {
        self.transport().host_mut()
    }

    pub(crate) fn device(&mut self) -> &mut TestDevice {
        self.transport().device_mut()
    }

    pub(crate) fn worker(&mut self) -> &mut TestWorker {
        self.host().worker.as_mut().expect("a running worker")
    }

    pub(crate) fn edges(&mut self) -> u32 {
        self.host().edges.load(Ordering::Relaxed)
    }
}
