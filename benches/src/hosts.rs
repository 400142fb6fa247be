//! The monitor's part of a device: a recording fake, and KVM.

use std::fs::File;
use std::io;
use std::sync::Arc;

use kvm_ioctls::{Kvm, VmFd};
use machine::KvmHost;
use machine::plan::ServedBy;
use virtio_transport::{Disconnected, Host, Trigger, Worker};

/// Where the measured device's registers are.
const MMIO_BASE: u64 = 0xd000_0000;
/// Its interrupt line.
const GSI: u32 = 5;

/// Records what it is asked for, and keeps the worker without running it.
pub struct FakeHost<W> {
    /// How often an interrupt, a start and a stop were asked for.
    pub asked: [u32; 3],
    worker: Option<W>,
}

impl<W> Default for FakeHost<W> {
    fn default() -> Self {
        Self {
            asked: [0; 3],
            worker: None,
        }
    }
}

impl<W: Worker> Host<W> for FakeHost<W> {
    fn connect_interrupt(&mut self) -> io::Result<Box<dyn Trigger>> {
        self.asked[0] += 1;
        Ok(Box::new(Disconnected))
    }

    fn start(&mut self, worker: W) -> Result<(), (W, io::Error)> {
        self.asked[1] += 1;
        self.worker = Some(worker);
        Ok(())
    }

    fn notify(&mut self, _queue: u16) {}

    fn stop(&mut self) -> Option<W> {
        self.asked[2] += 1;
        self.worker.take()
    }
}

/// A VM with interrupt controllers and nothing else; `None` where there is no KVM.
#[must_use]
pub fn vm() -> Option<Arc<VmFd>> {
    File::options().read(true).write(true).open("/dev/kvm").ok()?;
    let vm = Kvm::new().ok()?.create_vm().ok()?;
    vm.create_irq_chip().ok()?;
    Some(Arc::new(vm))
}

/// KVM's part for one device of that VM.
#[must_use]
pub fn kvm_host<W: Worker + 'static>(vm: &Arc<VmFd>, served_by: ServedBy) -> KvmHost<W> {
    KvmHost::new(Arc::clone(vm), "measured".to_owned(), GSI, MMIO_BASE).serve_by(served_by)
}
