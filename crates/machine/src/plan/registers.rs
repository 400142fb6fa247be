//! Where a device's registers lie in its slot, and which of them the guest may have as memory.

use resource_alloc::{Layout, MmioLayout};
use virtio_transport::{FIRST_INTERRUPT_REGISTER, MMIO_LEN};

use super::DeviceKind;

/// What the guest's mapping and KVM's memory slots are made of.
const PAGE: u64 = 0x1000;

/// Bytes of guest addresses for each device: its registers may reach from one page into the next.
const SLOT_LEN: u64 = MMIO_LEN + PAGE;

/// How the guest gets at the registers from InterruptStatus on: those of an interrupt, the device status and config space
/// ([`DeviceKind::interrupt_registers`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptRegisters {
    /// It reads them, and each write is heard of.
    Readable,
    /// While its driver runs they are memory for it: an interrupt costs no exit at all. That the driver has reset the device is
    /// heard of when it next touches one of the other registers, which is before it frees or sets up a queue.
    Memory,
}

impl DeviceKind {
    /// Memory where the driver has no request in flight when it resets the device, so that it does not matter that the device
    /// hears of it late: Linux's virtio-fs waits for the answer to each (`virtio_fs_drain_all_queues_locked`). The others
    /// have receive buffers in the ring at all times, which the driver frees right after the reset.
    #[must_use]
    pub fn interrupt_registers(&self) -> InterruptRegisters {
        match self {
            Self::Share(_) => InterruptRegisters::Memory,
            Self::Console { .. } | Self::Net(_) | Self::Vsock(_) => InterruptRegisters::Readable,
        }
    }

    /// How far into its slot a device's registers start: at its begin, or such that a page ends before InterruptStatus.
    pub(super) fn register_offset(&self) -> u64 {
        match self.interrupt_registers() {
            InterruptRegisters::Readable => 0,
            InterruptRegisters::Memory => PAGE - FIRST_INTERRUPT_REGISTER,
        }
    }
}

/// The layout with slots of that length.
pub(crate) fn with_wide_slots(layout: Layout) -> Layout {
    let window = layout.mmio.window();
    let wide = MmioLayout::new(window.base, window.base + window.len, SLOT_LEN);
    Layout {
        mmio: wide.unwrap_or(layout.mmio),
        ..layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::IrqLayouts;
    use crate::spec::{Share, Spec};

    #[test]
    fn a_page_begins_where_the_interrupt_registers_of_a_share_do_and_where_the_others_begin() {
        let spec = Spec {
            root: Some(Share::root("/root")),
            ..Spec::default()
        };
        let plan = crate::plan(&spec, &crate::Limits::bundle()).unwrap();
        assert_eq!(plan.devices.len(), 3);
        for device in &plan.devices {
            let memory = matches!(device.kind, DeviceKind::Share(_));
            let at = if memory { FIRST_INTERRUPT_REGISTER } else { 0 };
            assert!((device.mmio_base + at).is_multiple_of(PAGE), "{}", device.name);
            assert_eq!(
                device.kind.interrupt_registers() == InterruptRegisters::Memory,
                memory,
                "{}",
                device.name
            );
        }
    }

    #[test]
    fn both_layouts_have_slots_of_two_pages() {
        let IrqLayouts { in_kernel, split } = IrqLayouts::x86_64();
        assert_eq!([in_kernel.mmio.slot_len(), split.mmio.slot_len()], [SLOT_LEN; 2]);
    }
}
