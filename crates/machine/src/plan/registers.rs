//! Where a device's registers lie in its slot, and which of them the guest may have as memory.
//!
//! A page begins with InterruptStatus. What follows is read at each interrupt and is better memory; what comes before, QueueNotify
//! above all, is better none: KVM has a shorter way for a write to an address that has nothing behind it, and on Intel's
//! processors one without decoding the instruction.

use boot_params::layout::PAGE_SIZE;
use resource_alloc::{Layout, LayoutError, MmioLayout};
use serde::Serialize;
use virtio_transport::{FIRST_INTERRUPT_REGISTER, MMIO_LEN};

use super::{DeviceKind, PlanError};
use crate::limits::KernelTraits;

/// Bytes of guest addresses for each device: its registers reach from one page into the next.
const SLOT_LEN: u64 = MMIO_LEN + PAGE_SIZE;
/// How far into its slot a device's registers start.
pub(super) const OFFSET: u64 = PAGE_SIZE - FIRST_INTERRUPT_REGISTER;

/// How the guest gets at the registers from InterruptStatus on: those of an interrupt, the device status and config space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterruptRegisters {
    /// It reads them, and each write is heard of.
    Readable,
    /// While its driver runs they are memory for it: an interrupt costs no exit at all. That the driver has reset the device is
    /// heard of when it next accesses one of the other registers but QueueNotify, which it does before it frees or sets up
    /// a queue.
    Memory,
}

impl InterruptRegisters {
    /// Memory where it does not matter that a reset is heard of late: the driver has no request with the device then. The other
    /// kinds of devices have receive buffers at all times, which drivers free right after the reset.
    pub(super) fn of(kind: &DeviceKind, kernel: &KernelTraits) -> Self {
        match kind {
            DeviceKind::Share(_) if kernel.resets_idle_shares => Self::Memory,
            DeviceKind::Share(_) | DeviceKind::Console { .. } | DeviceKind::Net(_) | DeviceKind::Vsock(_) => {
                Self::Readable
            }
        }
    }
}

/// The layout with slots that have room for a device's registers where they start.
///
/// # Errors
/// The window is not made of such slots.
pub(super) fn with_wide_slots(layout: &Layout) -> Result<Layout, LayoutError> {
    let (window, slot_len) = (layout.mmio.window(), layout.mmio.slot_len());
    Ok(Layout {
        irq: layout.irq.clone(),
        mmio: MmioLayout::new(window.base, window.base + window.len, slot_len.max(SLOT_LEN))?,
    })
}

/// Whether there are memory slots for so many regions of memory, and for the registers of so many devices.
///
/// # Errors
/// [`PlanError::MemorySlots`] when there are not.
pub(super) fn fit_into_slots(memory: usize, devices: usize, max: u32) -> Result<(), PlanError> {
    if (memory + devices) as u64 > u64::from(max) {
        return Err(PlanError::MemorySlots { memory, devices, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::plan::{DevicePlan, Plan};
    use crate::spec::{Share, Spec};

    fn shares() -> Spec {
        Spec {
            root: Some(Share::root("/root")),
            shares: vec![Share::new("/srv", "/data")],
            ..Spec::default()
        }
    }

    fn planned(limits: &Limits) -> Plan {
        crate::plan(&shares(), limits).unwrap()
    }

    /// The first and the last page of its registers.
    fn pages(device: &DevicePlan) -> [u64; 2] {
        [device.mmio_base, device.mmio_base + device.mmio_len - 1].map(|address| address / PAGE_SIZE)
    }

    #[test]
    fn a_page_begins_with_the_interrupt_registers_and_those_of_a_share_are_memory() {
        let plan = planned(&Limits::bundle());
        assert_eq!(plan.devices.len(), 4);
        for device in &plan.devices {
            let registers = match device.kind {
                DeviceKind::Share(_) => InterruptRegisters::Memory,
                _ => InterruptRegisters::Readable,
            };
            let page = device.mmio_base + FIRST_INTERRUPT_REGISTER;
            assert!(page.is_multiple_of(PAGE_SIZE), "{}", device.name);
            assert_eq!(device.interrupt_registers, registers, "{}", device.name);
        }
    }

    #[test]
    fn kernel_that_is_not_known_to_reset_idle_shares_is_heard() {
        let mut limits = Limits::bundle();
        limits.kernel.resets_idle_shares = false;
        for device in &planned(&limits).devices {
            assert_eq!(
                device.interrupt_registers,
                InterruptRegisters::Readable,
                "{}",
                device.name
            );
        }
    }

    #[test]
    fn no_two_devices_share_a_page_whatever_the_layouts_slots() {
        for slot_len in [0x200, 0x1000, 0x2000, 0x10000] {
            let mut limits = Limits::bundle();
            limits.irq_layouts.split.mmio = MmioLayout::new(0xd000_0000, 0xd010_0000, slot_len).unwrap();
            let plan = planned(&limits);
            for pair in plan.devices.windows(2) {
                assert!(pages(&pair[0])[1] < pages(&pair[1])[0], "{slot_len:#x}");
            }
        }
    }

    #[test]
    fn window_without_room_for_whole_slots_is_refused() {
        let mut limits = Limits::bundle();
        limits.irq_layouts.split.mmio = MmioLayout::new(0xd000_1000, 0xd010_0000, 0x1000).unwrap();
        let refused = crate::plan(&shares(), &limits).unwrap_err();
        assert!(matches!(refused, PlanError::Window { .. }), "{refused}");
    }
}
