//! Which interrupt controllers a machine has.
//!
//! KVM has all of them in the kernel: LAPICs, PIC, PIT, and an IO-APIC of 24 pins, 19 of them for devices. Or it has the
//! LAPICs alone, and the IO-APIC is ours, with as many pins as we give it (the *split* irqchip). With the second KVM
//! injects a device's interrupt in the thread that raises it; with the first it goes by way of a kernel thread. But the
//! first has a timer for guests without kvm-clock, so it is the one for a kernel of which nothing is known, as long as the
//! devices fit.

use std::fmt;

use serde::Serialize;

use crate::limits::{IrqLayouts, KernelTraits};
use crate::spec::IrqchipChoice;
use resource_alloc::Layout;

/// Where a machine's interrupt controllers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Irqchip {
    /// All in the kernel (`KVM_CREATE_IRQCHIP`).
    InKernel,
    /// LAPICs in the kernel, the IO-APIC in this process (`KVM_CAP_SPLIT_IRQCHIP`); neither PIC nor PIT.
    Split,
}

impl Irqchip {
    /// The lines and addresses that devices may have with it.
    #[must_use]
    pub const fn layout(self, layouts: &IrqLayouts) -> &Layout {
        match self {
            Self::InKernel => &layouts.in_kernel,
            Self::Split => &layouts.split,
        }
    }
}

/// What was decided, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IrqchipDecision {
    /// Where the interrupt controllers are.
    pub kind: Irqchip,
    /// Why there.
    pub reason: Reason,
}

/// Why the interrupt controllers are where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is asked for.
    Requested,
    /// Interrupts take a shorter way, and the kernel needs none of the timers that are missing.
    ShorterWay,
    /// The devices fit the lines of the in-kernel irqchip.
    Fits {
        /// How many there are.
        lines: u64,
    },
    /// There are more devices than lines of the in-kernel irqchip.
    TooManyDevices {
        /// How many there are.
        lines: u64,
    },
}

/// Decides. Whether the devices fit the one decided on is seen when they are placed.
#[must_use]
pub fn choose(asked: IrqchipChoice, devices: usize, kernel: &KernelTraits, layouts: &IrqLayouts) -> IrqchipDecision {
    let lines = layouts.in_kernel.irq.lines();
    let (kind, reason) = match asked {
        IrqchipChoice::InKernel => (Irqchip::InKernel, Reason::Requested),
        IrqchipChoice::Split => (Irqchip::Split, Reason::Requested),
        IrqchipChoice::Auto if kernel.kvm_clock => (Irqchip::Split, Reason::ShorterWay),
        IrqchipChoice::Auto if devices as u64 <= lines => (Irqchip::InKernel, Reason::Fits { lines }),
        IrqchipChoice::Auto => (Irqchip::Split, Reason::TooManyDevices { lines }),
    };
    IrqchipDecision { kind, reason }
}

impl fmt::Display for Irqchip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InKernel => "in-kernel",
            Self::Split => "split",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("it is asked for"),
            Self::ShorterWay => f.write_str("its interrupts take a shorter way"),
            Self::Fits { lines } => write!(f, "its {lines} lines are enough"),
            Self::TooManyDevices { lines } => write!(f, "the {lines} lines of the in-kernel one are not enough"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use IrqchipChoice::{Auto, InKernel, Split};

    #[test]
    fn choice_follows_the_table() {
        let (fits, too_many) = (Reason::Fits { lines: 19 }, Reason::TooManyDevices { lines: 19 });
        let table = [
            (Auto, 0, Irqchip::InKernel, fits),
            (Auto, 3, Irqchip::InKernel, fits),
            (Auto, 19, Irqchip::InKernel, fits),
            (Auto, 20, Irqchip::Split, too_many),
            (Auto, 115, Irqchip::Split, too_many),
            (Auto, 116, Irqchip::Split, too_many),
            (InKernel, 0, Irqchip::InKernel, Reason::Requested),
            (InKernel, 19, Irqchip::InKernel, Reason::Requested),
            (InKernel, 20, Irqchip::InKernel, Reason::Requested),
            (Split, 0, Irqchip::Split, Reason::Requested),
            (Split, 20, Irqchip::Split, Reason::Requested),
            (Split, 116, Irqchip::Split, Reason::Requested),
        ];
        let unknown = KernelTraits {
            kvm_clock: false,
            ..KernelTraits::bundle()
        };
        for (asked, devices, kind, reason) in table {
            let decision = choose(asked, devices, &unknown, &IrqLayouts::x86_64());
            assert_eq!(decision, IrqchipDecision { kind, reason }, "{asked:?} {devices}");
        }
    }

    #[test]
    fn kernel_with_kvm_clock_has_the_split_one_unless_asked_otherwise() {
        let table = [
            (Auto, Irqchip::Split, Reason::ShorterWay),
            (InKernel, Irqchip::InKernel, Reason::Requested),
            (Split, Irqchip::Split, Reason::Requested),
        ];
        for (asked, kind, reason) in table {
            for devices in [0, 19, 20, 116] {
                let decision = choose(asked, devices, &KernelTraits::bundle(), &IrqLayouts::x86_64());
                assert_eq!(decision, IrqchipDecision { kind, reason }, "{asked:?} {devices}");
            }
        }
    }

    #[test]
    fn each_irqchip_has_its_own_lines() {
        let layouts = IrqLayouts::x86_64();
        let lines = [Irqchip::InKernel, Irqchip::Split].map(|kind| kind.layout(&layouts).irq.lines());
        assert_eq!(lines, [19, 115]);
    }
}
