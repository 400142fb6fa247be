//! A machine's interrupt controllers, wherever the plan has them, and what the rest of the machine wants of them.

mod in_kernel;
mod io_apic;
mod split;

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use virtio_transport::Trigger;

use crate::bus::Registers;
use crate::plan::{Irqchip, Plan};
pub(crate) use split::Counts;
use split::{SplitIrqchip, Window};

/// Pins below belong to the legacy devices.
const FIRST_DEVICE_PIN: usize = 5;

/// The interrupt controllers of a machine.
#[derive(Clone)]
pub(crate) enum InterruptControllers {
    InKernel(Arc<VmFd>),
    Split(Arc<SplitIrqchip>),
}

impl InterruptControllers {
    /// Makes those of the plan; to be called before the first vCPU is made.
    pub(crate) fn create(vm: &Arc<VmFd>, plan: &Plan) -> Result<Self, kvm_ioctls::Error> {
        match plan.irqchip.kind {
            Irqchip::InKernel => {
                in_kernel::create(vm)?;
                Ok(Self::InKernel(Arc::clone(vm)))
            }
            Irqchip::Split => {
                let split = SplitIrqchip::create(Arc::clone(vm), plan.io_apic_pins)?;
                Ok(Self::Split(Arc::new(split)))
            }
        }
    }

    /// The IO-APIC's registers, if they are not in the kernel.
    pub(crate) fn registers(&self) -> Option<Box<dyn Registers>> {
        match self {
            Self::InKernel(_) => None,
            Self::Split(split) => Some(Box::new(Window(Arc::clone(split)))),
        }
    }

    /// An interrupt line without a descriptor of its own: for those that are raised a few times in a machine's life, if ever.
    pub(crate) fn line(&self, line: u32) -> Box<dyn Trigger> {
        Box::new(Line {
            controllers: self.clone(),
            line,
        })
    }

    /// A processor is done with a level-triggered interrupt that an IO-APIC outside the kernel has sent.
    pub(crate) fn end_of_interrupt(&self, vector: u8) {
        if let Self::Split(split) = self {
            split.end_of_interrupt(vector);
        }
    }

    /// Whether the guest left interrupts of ours unmasked in the IO-APIC. An orderly end masks them all, a panic none.
    pub(crate) fn drivers_live(&self) -> bool {
        match self {
            Self::InKernel(vm) => in_kernel::has_unmasked(vm, FIRST_DEVICE_PIN),
            Self::Split(split) => split.has_unmasked(FIRST_DEVICE_PIN),
        }
    }

    /// What the split irqchip has had to do.
    pub(crate) fn counts(&self) -> Option<Counts> {
        match self {
            Self::InKernel(_) => None,
            Self::Split(split) => Some(split.counts()),
        }
    }
}

struct Line {
    controllers: InterruptControllers,
    line: u32,
}

impl Trigger for Line {
    fn trigger(&self) -> io::Result<()> {
        match &self.controllers {
            InterruptControllers::InKernel(vm) => in_kernel::pulse(vm, self.line),
            InterruptControllers::Split(split) => split.pulse(self.line),
        }
    }
}
