//! Where the driver's acknowledgements go.
//!
//! Linux writes InterruptACK at each interrupt of a virtio-mmio device, and nobody here needs to hear of it: the line is
//! an edge, and the driver looks at its used rings whatever the bit says. A device that is interrupted often gets an
//! ioeventfd there that nobody reads, so that the write ends inside KVM. One that is not saves the registration.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// Offset of InterruptACK in the register block (virtio 1.3, 4.2.2), and the bit of the used rings.
const INTERRUPT_ACK: u64 = 0x64;
const USED_RING: u32 = 1;

/// A registration costs about as much as this many exits.
const WORTH_IT: u32 = 64;

/// The acknowledgements of one device.
pub(super) struct Acknowledgements {
    register: IoEventAddress,
    nowhere: Option<Arc<EventFd>>,
    counted: u32,
    connected: bool,
}

impl Acknowledgements {
    pub(super) fn at(mmio_base: u64) -> Self {
        Self {
            register: IoEventAddress::Mmio(mmio_base + INTERRUPT_ACK),
            nowhere: None,
            counted: 0,
            connected: false,
        }
    }

    /// They may end in `nowhere`.
    pub(super) fn end_in(&mut self, nowhere: Arc<EventFd>) {
        self.nowhere = Some(nowhere);
    }

    /// One came by way of an exit. Those with another bit, for config space, go on doing so.
    pub(super) fn count(&mut self, vm: &VmFd, device: &str) {
        self.counted = self.counted.saturating_add(1);
        let Some(nowhere) = self.nowhere.as_ref().filter(|_| self.counted == WORTH_IT) else {
            return;
        };
        match vm.register_ioevent(nowhere, &self.register, USED_RING) {
            Ok(()) => self.connected = true,
            Err(error) => tracing::debug!(device, %error, "acknowledgements go on to exit"),
        }
    }

    /// The next driver is counted from the start.
    pub(super) fn disconnect(&mut self, vm: &VmFd, device: &str) {
        self.counted = 0;
        let connected = std::mem::take(&mut self.connected);
        if let Some(nowhere) = self.nowhere.as_ref().filter(|_| connected)
            && let Err(error) = vm.unregister_ioevent(nowhere, &self.register, USED_RING)
        {
            tracing::warn!(device, %error, "cannot disconnect the acknowledgements");
        }
    }
}
