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
    /// What it takes costs about as much as so many interrupts without it, each an exit for the acknowledgement, and
    /// another one for the status where that is not readable.
    fn worth_it_after(&self) -> u32 {
        match self {
            Self::InKvm(_) => 64,
            Self::InMemory(_) => 32,
        }
    }

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

    /// What is done once there are many.
    pub(super) fn when_many(&mut self, quietly: Quietly) {
        self.quietly = Some(quietly);
    }

    /// One came to this process.
    pub(super) fn count(&mut self, vm: &VmFd, device: &str) {
        self.counted = self.counted.saturating_add(1);
        let worth_it = |quietly: &&Quietly| self.counted == quietly.worth_it_after();
        let Some(quietly) = self.quietly.as_ref().filter(worth_it) else {
            return;
        };
        match quietly.begin(vm, &self.register) {
            Ok(()) => self.quiet = true,
            Err(error) => tracing::debug!(device, %error, "acknowledgements go on coming here"),
        }
    }

    /// They come here again, and the next driver's are counted from the start.
    ///
    /// # Errors
    /// Those of KVM. Nothing has changed then, and this is to be called again: before it has succeeded no driver may begin,
    /// as this process might not hear it.
    pub(super) fn hear_again(&mut self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        if let Some(quietly) = self.quietly.as_ref().filter(|_| self.quiet) {
            quietly.end(vm, &self.register)?;
        }
        self.quiet = false;
        self.counted = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kvm_ioctls::Kvm;
    use vm_memory::MmapRegion;

    use super::*;

    fn page() -> RegisterSlot {
        let memory = Arc::new(MmapRegion::new(0x1000).unwrap());
        RegisterSlot::new(0, 0x4000, &memory, 0).unwrap()
    }

    #[test]
    fn registers_that_cannot_be_taken_back_are_tried_again_before_another_driver_begins() {
        let Ok(kvm) = Kvm::new() else {
            return eprintln!("skipped: this test needs /dev/kvm");
        };
        let vm = kvm.create_vm().unwrap();
        let mut acknowledgements = Acknowledgements::at(0x3fa0);
        acknowledgements.when_many(Quietly::InMemory(page()));
        for _ in 0..100 {
            acknowledgements.count(&vm, "test");
        }
        assert!(acknowledgements.quiet);
        // Taken away behind its back: KVM refuses to take away what is not there.
        page().unmap(&vm).unwrap();
        for _ in 0..2 {
            assert!(acknowledgements.hear_again(&vm).is_err());
        }
        page().map(&vm, Access::ReadWrite).unwrap();
        acknowledgements.hear_again(&vm).unwrap();
        assert!(!acknowledgements.quiet);
        acknowledgements.hear_again(&vm).unwrap();
    }
}
