//! Where the driver's acknowledgements go.
//!
//! Linux writes InterruptACK at each interrupt of a virtio-mmio device, and nobody here needs to hear of it: the line is
//! an edge, and the driver looks at its used rings whatever the bit says. A device that is interrupted often gets an
//! ioeventfd there that nobody reads, so that the write ends inside KVM. One that is not saves the registration.

use std::io;

use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Offset of InterruptACK in the register block (virtio 1.3, 4.2.2), and the bit of the used rings.
const INTERRUPT_ACK: u64 = 0x64;
const USED_RING: u32 = 1;

/// A registration costs about as much as this many exits.
const WORTH_IT: u32 = 64;

/// The acknowledgements of one device.
pub(super) struct Acknowledgements {
    register: IoEventAddress,
    counted: u32,
    nowhere: Option<EventFd>,
}

impl Acknowledgements {
    pub(super) fn at(mmio_base: u64) -> Self {
        Self {
            register: IoEventAddress::Mmio(mmio_base + INTERRUPT_ACK),
            counted: 0,
            nowhere: None,
        }
    }

    /// One came by way of an exit. Those with another bit, for config space, go on doing so.
    pub(super) fn count(&mut self, vm: &VmFd, device: &str) {
        self.counted = self.counted.saturating_add(1);
        if self.counted != WORTH_IT {
            return;
        }
        match self.connect(vm) {
            Ok(nowhere) => self.nowhere = Some(nowhere),
            Err(error) => tracing::debug!(device, %error, "acknowledgements go on to exit"),
        }
    }

    fn connect(&self, vm: &VmFd) -> io::Result<EventFd> {
        let nowhere = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        vm.register_ioevent(&nowhere, &self.register, USED_RING)?;
        Ok(nowhere)
    }

    /// The next driver is counted from the start.
    pub(super) fn disconnect(&mut self, vm: &VmFd, device: &str) {
        self.counted = 0;
        if let Some(nowhere) = self.nowhere.take()
            && let Err(error) = vm.unregister_ioevent(&nowhere, &self.register, USED_RING)
        {
            tracing::warn!(device, %error, "cannot disconnect the acknowledgements");
        }
    }
}
