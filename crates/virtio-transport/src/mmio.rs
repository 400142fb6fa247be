//! The register block of one device.

use std::sync::Arc;
use std::time::Duration;

use crate::features::{self, Features};
use crate::queues::Queues;
use crate::registers::{self as reg, high, low};
use crate::status::{self, Step};
use crate::{Activation, Disconnected, Host, Interrupt, Memory, RegisterPage, Stats, VirtioDevice, Worker};

/// What a region that is not there reads as (virtio 1.3, 4.2.2).
const NO_SHARED_MEMORY: u64 = u64::MAX;

/// Bytes that config space can have: what the register block has from `CONFIG` on.
const CONFIG_LEN: usize = 0xf00;

/// A virtio device behind a virtio-mmio register block, version 2.
///
/// Not shared: the bus passes one access at a time.
#[derive(Debug)]
pub struct MmioTransport<D, H> {
    device: D,
    host: H,
    mem: Memory,
    /// All that the driver can read.
    page: RegisterPage,
    /// The device status without DEVICE_NEEDS_RESET, which is the interrupt's. The page shows both, but where a part of it is
    /// the driver's memory it is not to be trusted.
    status: u32,
    features: Features,
    queues: Queues,
    shm_sel: u32,
    /// From DRIVER_OK to reset.
    interrupt: Option<Arc<Interrupt>>,
    /// The host has the worker.
    running: bool,
    has_run: bool,
    /// The host lost the worker, and with it a part of the device: it cannot be started again.
    lost: bool,
    stats: Stats,
}

impl<D: VirtioDevice, H: Host<D::Worker>> MmioTransport<D, H> {
    /// A device in reset.
    pub fn new(device: D, host: H, mem: Memory) -> Self {
        Self::on_page(device, host, mem, RegisterPage::private())
    }

    /// A device in reset that shows its registers in `page`, which the driver may read without asking.
    pub fn on_page(device: D, host: H, mem: Memory, page: RegisterPage) -> Self {
        let queues = Queues::new(device.queue_max_sizes());
        let transport = Self {
            device,
            host,
            mem,
            page,
            status: 0,
            features: Features::default(),
            queues,
            shm_sel: 0,
            interrupt: None,
            running: false,
            has_run: false,
            lost: false,
            stats: Stats::default(),
        };
        transport.show_all();
        transport
    }

    /// The front half of the device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The front half of the device, to change it. [`config_changed`](Self::config_changed) tells the driver.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// The monitor's part.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The monitor's part, to change it.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether a worker is running: between a successful DRIVER_OK and reset.
    pub fn is_active(&self) -> bool {
        self.running
    }

    /// Whether a worker was ever started: a driver has taken the device at some time.
    pub fn has_run(&self) -> bool {
        self.has_run
    }

    /// The front half has changed config space: the generation moves on, and a running driver is told.
    pub fn config_changed(&mut self) {
        let config = self.config();
        match &self.interrupt {
            Some(interrupt) => interrupt.config_changed(&config),
            None => self.page.change_config(&config),
        }
    }

    /// For the end of the machine: stops the worker, lets it deliver what the driver has handed over
    /// ([`Worker::finish`]), and gives it back to the device, as a reset by the driver does.
    pub fn shutdown(&mut self, patience: Duration) {
        self.catch_up();
        self.stop(|worker| worker.finish(patience));
        self.reset();
    }

    /// The guest reads `data.len()` bytes at `offset` of the register block. Registers are 4 bytes, aligned; config
    /// space takes any width. Whatever is not there reads as 0.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.catch_up();
        data.fill(0);
        match offset {
            0..reg::CONFIG => match <&mut [u8; 4]>::try_from(data) {
                Ok(word) if offset.is_multiple_of(4) => *word = self.page.load(offset).to_le_bytes(),
                _ => self.stats.accesses_malformed += 1,
            },
            reg::CONFIG..reg::MMIO_LEN => self.page.read(offset, data),
            _ => self.stats.accesses_malformed += 1,
        }
    }

    /// The guest writes `data` to `offset` of the register block. What it may not write is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.catch_up();
        match offset {
            0..reg::CONFIG => match <[u8; 4]>::try_from(data) {
                Ok(word) if offset.is_multiple_of(4) => self.write_register(offset, u32::from_le_bytes(word)),
                _ => self.stats.accesses_malformed += 1,
            },
            reg::CONFIG..reg::MMIO_LEN => {
                self.device.write_config(offset - reg::CONFIG, data);
                self.show_config();
            }
            _ => self.stats.accesses_malformed += 1,
        }
    }

    fn show_all(&self) {
        self.show_identity();
        self.show_selected();
        self.show_config();
        self.show_status();
    }

    fn show_identity(&self) {
        self.page.store(reg::MAGIC_VALUE, reg::MAGIC);
        self.page.store(reg::VERSION, reg::VERSION_2);
        self.page.store(reg::DEVICE_ID, self.device.device_id());
        self.page.store(reg::VENDOR_ID, reg::VENDOR);
    }

    /// What depends on a selector that the driver writes.
    fn show_selected(&self) {
        let (len, base) = self.shared_memory();
        self.page
            .store(reg::DEVICE_FEATURES, self.features.read_offered(self.offered()));
        self.page.store(reg::QUEUE_SIZE_MAX, self.queues.max_size());
        self.page.store(reg::QUEUE_READY, self.queues.ready());
        self.page.store(reg::SHM_LEN_LOW, low(len));
        self.page.store(reg::SHM_LEN_HIGH, high(len));
        self.page.store(reg::SHM_BASE_LOW, low(base));
        self.page.store(reg::SHM_BASE_HIGH, high(base));
    }

    fn show_config(&self) {
        self.page.show_config(&self.config());
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; CONFIG_LEN];
        self.device.read_config(0, &mut config);
        config
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            reg::QUEUE_NOTIFY => self.notify(value),
            reg::INTERRUPT_ACK => self.acknowledge(value),
            _ => {
                self.configure(offset, value);
                self.show_selected();
            }
        }
    }

    fn configure(&mut self, offset: u64, value: u32) {
        match offset {
            reg::STATUS => self.write_status(value),
            reg::DEVICE_FEATURES_SEL => self.features.device_sel = value,
            reg::DRIVER_FEATURES_SEL => self.features.driver_sel = value,
            reg::QUEUE_SEL => self.queues.selected = value,
            reg::SHM_SEL => self.shm_sel = value,
            reg::DRIVER_FEATURES if status::negotiates_features(self.status()) => {
                self.features.write_accepted(value);
            }
            _ => {
                let open = status::configures_queues(self.status());
                if !open || !self.queues.write(offset, value) {
                    self.stats.writes_ignored += 1;
                }
            }
        }
    }

    fn offered(&self) -> u64 {
        features::offered(self.device.features())
    }

    /// (length, base) of the selected region.
    fn shared_memory(&self) -> (u64, u64) {
        match self.device.shared_memory(self.shm_sel) {
            Some(region) => (region.len, region.addr.0),
            None => (NO_SHARED_MEMORY, NO_SHARED_MEMORY),
        }
    }

    /// With DEVICE_NEEDS_RESET, which the device sets at any time.
    fn status(&self) -> u32 {
        self.status | if self.needs_reset() { reg::NEEDS_RESET } else { 0 }
    }

    fn set_status(&mut self, bit: u32) {
        self.status |= bit;
        self.page.set_bits(reg::STATUS, bit);
    }

    fn show_status(&self) {
        self.page.store(reg::STATUS, self.status);
        // Afterwards: whoever sets the flag meanwhile shows it too, and only then.
        if self.needs_reset() {
            self.page.set_bits(reg::STATUS, reg::NEEDS_RESET);
        }
    }

    fn needs_reset(&self) -> bool {
        self.interrupt
            .as_ref()
            .is_some_and(|interrupt| interrupt.is_reset_needed())
    }

    /// Does what the driver has asked for by writing Status where it is the driver's memory: the page then shows another one
    /// than the device has. A driver that has taken bits back has reset the device in between.
    fn catch_up(&mut self) {
        let written = self.page.load(reg::STATUS);
        if written == self.status() {
            return;
        }
        if self.status & !written != 0 {
            self.reset();
            for step in [reg::ACKNOWLEDGE, reg::ACKNOWLEDGE | reg::DRIVER] {
                self.write_status(written & step);
            }
        }
        self.write_status(written);
        self.show_status();
    }

    fn write_status(&mut self, written: u32) {
        // The host may have changed it while there was no worker to say so.
        self.show_config();
        match status::step(self.status(), written) {
            Step::Stay => {}
            Step::Reject => self.stats.status_rejected += 1,
            Step::Reset => self.reset(),
            Step::Fail => self.fail(),
            Step::Set(bit) => self.set_status(bit),
            Step::CheckFeatures => self.check_features(),
            Step::Activate => self.activate(),
        }
    }

    /// Without FEATURES_OK in what it reads back, the driver gives up or tries other features.
    fn check_features(&mut self) {
        if self.features.agreed(self.offered()).is_some() {
            self.set_status(reg::FEATURES_OK);
        } else {
            self.stats.features_rejected += 1;
        }
    }

    fn notify(&mut self, value: u32) {
        match self.queues.index(value) {
            Some(queue) if self.running => self.host.notify(queue),
            _ => self.stats.notifications_ignored += 1,
        }
    }

    fn acknowledge(&mut self, bits: u32) {
        let Some(interrupt) = &self.interrupt else { return };
        interrupt.acknowledge(bits);
        if self.running && bits == reg::INTERRUPT_USED_RING {
            self.host.acknowledged();
        }
    }

    fn activate(&mut self) {
        self.set_status(reg::DRIVER_OK);
        let (trigger, connected) = match self.host.connect_interrupt() {
            Ok(trigger) => (trigger, Ok(())),
            Err(error) => (Box::new(Disconnected) as _, Err(error.into())),
        };
        let interrupt = Arc::new(Interrupt::on_page(trigger, self.page.clone()));
        self.interrupt = Some(Arc::clone(&interrupt));
        if let Err(error) = connected.and_then(|()| self.start(&interrupt)) {
            self.report_failed_activation(&error);
            interrupt.needs_reset();
        }
    }

    fn start(&mut self, interrupt: &Arc<Interrupt>) -> Result<(), StartError> {
        let features = self.features.agreed(self.offered()).unwrap_or_default();
        let activation = Activation {
            mem: Arc::clone(&self.mem),
            rings: self.queues.rings(&*self.mem, features)?,
            features,
            interrupt: Arc::clone(interrupt),
        };
        let worker = self.device.activate(activation)?;
        match self.host.start(worker) {
            Ok(()) => {
                self.running = true;
                self.has_run = true;
                Ok(())
            }
            Err((worker, error)) => {
                self.device.reset(worker);
                Err(error.into())
            }
        }
    }

    /// Logged once: the driver can try for ever.
    fn report_failed_activation(&mut self, error: &StartError) {
        if self.stats.activations_failed == 0 {
            tracing::warn!(
                device = self.device.device_id(),
                error = error as &dyn std::error::Error,
                "cannot start"
            );
        }
        self.stats.activations_failed += 1;
    }

    /// A driver that gave up may have freed the rings: nothing may run on.
    fn fail(&mut self) {
        self.stop(|_| {});
        self.set_status(reg::FAILED);
    }

    fn reset(&mut self) {
        self.stop(|_| {});
        self.features = Features::default();
        self.queues.reset();
        self.shm_sel = 0;
        // Without its worker the device cannot be used again, and the driver is told at once (virtio 1.3, 2.1).
        self.status = if self.lost { reg::FAILED } else { 0 };
        self.show_status();
    }

    fn stop(&mut self, last: impl FnOnce(&mut D::Worker)) {
        if self.interrupt.take().is_none() {
            return;
        }
        match self.host.stop() {
            Some(mut worker) => {
                last(&mut worker);
                self.device.reset(worker);
            }
            None if self.running => {
                tracing::error!(
                    device = self.device.device_id(),
                    "the worker is lost; the device is out of use"
                );
                self.lost = true;
            }
            None => {}
        }
        self.running = false;
        self.page.clear_interrupt_registers();
        self.show_all();
    }
}

/// Why DRIVER_OK was answered with DEVICE_NEEDS_RESET.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the driver set up a queue that cannot work")]
    Queue(#[from] crate::queues::InvalidQueue),
    #[error("the device refuses")]
    Device(#[from] crate::ActivateError),
    #[error("the host refuses")]
    Host(#[from] std::io::Error),
}
