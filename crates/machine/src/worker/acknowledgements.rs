//! Where the driver's acknowledgements go.
//!
//! Linux writes InterruptACK at each interrupt of a virtio-mmio device, and nobody here needs to hear of it: the line is
//! an edge, and the driver looks at its used rings whatever the bit says. A device that is interrupted often is spared
//! those writes. One that is not saves what that takes.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::sys::{Access, RegisterSlot};

/// Offset of InterruptACK in the register block (virtio 1.3, 4.2.2), and the bit of the used rings.
const INTERRUPT_ACK: u64 = 0x64;
const USED_RING: u32 = 1;

/// What spares them costs about as much as this many exits.
const WORTH_IT: u32 = 64;

/// How acknowledgements are dealt with without this process.
pub(super) enum Quietly {
    /// Each is an exit that ends inside KVM, in an ioeventfd that nobody reads; one does for all devices of a machine. Those with
    /// another bit, for config space, go on coming here.
    InKvm(Arc<EventFd>),
    /// None is an exit: the registers from InterruptStatus on are the guest's memory
    /// ([`InterruptRegisters::Memory`](crate::plan::InterruptRegisters)).
    InMemory(RegisterSlot),
}

impl Quietly {
    fn begin(&self, vm: &VmFd, register: &IoEventAddress) -> Result<(), kvm_ioctls::Error> {
        match self {
            Self::InKvm(nowhere) => vm.register_ioevent(nowhere, register, USED_RING),
            Self::InMemory(page) => page.map(vm, Access::ReadWrite),
        }
    }

    fn end(&self, vm: &VmFd, register: &IoEventAddress) -> Result<(), kvm_ioctls::Error> {
        match self {
            Self::InKvm(nowhere) => vm.unregister_ioevent(nowhere, register, USED_RING),
            Self::InMemory(page) => page.unmap(vm),
        }
    }
}

/// The acknowledgements of one device.
pub(super) struct Acknowledgements {
    register: IoEventAddress,
    quietly: Option<Quietly>,
    counted: u32,
    quiet: bool,
}

impl Acknowledgements {
    pub(super) fn at(mmio_base: u64) -> Self {
        Self {
            register: IoEventAddress::Mmio(mmio_base + INTERRUPT_ACK),
            quietly: None,
            counted: 0,
            quiet: false,
        }
    }

    /// They may be dealt with so.
    pub(super) fn end(&mut self, quietly: Quietly) {
        self.quietly = Some(quietly);
    }

    /// One came to this process.
    pub(super) fn count(&mut self, vm: &VmFd, device: &str) {
        self.counted = self.counted.saturating_add(1);
        let Some(quietly) = self.quietly.as_ref().filter(|_| self.counted == WORTH_IT) else {
            return;
        };
        match quietly.begin(vm, &self.register) {
            Ok(()) => self.quiet = true,
            Err(error) => tracing::debug!(device, %error, "acknowledgements go on coming here"),
        }
    }

    /// The next driver is counted from the start.
    pub(super) fn disconnect(&mut self, vm: &VmFd, device: &str) {
        self.counted = 0;
        let quiet = std::mem::take(&mut self.quiet);
        if let Some(quietly) = self.quietly.as_ref().filter(|_| quiet)
            && let Err(error) = quietly.end(vm, &self.register)
        {
            tracing::warn!(device, %error, "cannot have the acknowledgements back");
        }
    }
}
