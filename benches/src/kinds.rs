//! One device of each kind, made as `machine` makes it, and the driver that takes it.

use std::path::Path;

use test_guest::{Guest, MmioDriver, Registers, SplitRing};
use virtio_console::{Console, ConsoleConfig, Port, PortKind, TerminalSize};
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};
use virtio_fs::{Fs, FsConfig};
use virtio_transport::{Host, MmioTransport, VirtioDevice};
use virtio_vsock_tsi::{TsiFlags, Vsock, VsockConfig};

/// All features; the device takes what it offers.
const EVERY_FEATURE: u64 = u64::MAX;
/// Chains in each of the driver's queues, where the device allows as many.
const QUEUE_SIZE: u16 = 16;

/// A console with the four ports of a run with pipes.
///
/// # Panics
/// When the device refuses, which is a defect of the bench.
#[must_use]
pub fn console() -> Console {
    let terminal = PortKind::Terminal {
        size: TerminalSize::default(),
    };
    let port = |name: &str, kind| Port {
        name: name.to_owned(),
        kind,
        input: None,
        output: None,
    };
    let pipes = ["stdin", "stdout", "stderr"].map(|name| port(name, PortKind::Pipe));
    let ports = std::iter::once(port("", terminal)).chain(pipes).collect();
    Console::new(ConsoleConfig { ports }).expect("four ports")
}

/// A share of `folder`.
///
/// # Panics
/// When the folder is not there.
#[must_use]
pub fn share(folder: &Path) -> Fs {
    let passthrough = Passthrough::new(folder, PassthroughConfig::default()).expect("a folder");
    Fs::new(FsConfig::new("share"), Box::new(passthrough)).expect("a short tag")
}

/// A vsock device with INET TSI.
///
/// # Panics
/// When the device refuses, which is a defect of the bench.
#[must_use]
pub fn vsock() -> Vsock {
    let tsi = TsiFlags {
        inet: true,
        unix: false,
    };
    Vsock::new(VsockConfig {
        tsi,
        ..VsockConfig::default()
    })
    .expect("no routes")
}

/// A device on its registers, and the guest's memory and rings for it.
pub struct Attached<D, H> {
    transport: MmioTransport<D, H>,
    rings: Vec<SplitRing>,
}

struct Block<'a, D, H>(&'a mut MmioTransport<D, H>);

impl<D: VirtioDevice, H: Host<D::Worker>> Registers for Block<'_, D, H> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}

impl<D: VirtioDevice, H: Host<D::Worker>> Attached<D, H> {
    /// What `build` does for a device of the plan.
    pub fn new(device: D, host: H, guest: &mut Guest) -> Self {
        let rings = device
            .queue_max_sizes()
            .iter()
            .map(|max| guest.ring(QUEUE_SIZE.min(*max)))
            .collect();
        let transport = MmioTransport::new(device, host, guest.shared_mem());
        Self { transport, rings }
    }

    /// What a driver does, up to DRIVER_OK.
    ///
    /// # Panics
    /// When the device does not start: then there is nothing to measure.
    pub fn activate(&mut self) {
        let rings: Vec<&SplitRing> = self.rings.iter().collect();
        MmioDriver::new(Block(&mut self.transport)).start(EVERY_FEATURE, &rings);
        assert!(self.transport.is_active(), "the device has started");
    }

    /// The driver gives the device up.
    pub fn reset(&mut self) {
        MmioDriver::new(Block(&mut self.transport)).reset();
    }

    /// The monitor's part.
    pub fn host(&self) -> &H {
        self.transport.host()
    }
}

/// Memory enough for the rings of every kind.
#[must_use]
pub fn guest() -> Guest {
    Guest::new(1 << 20)
}
