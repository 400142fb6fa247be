//! The in-kernel interrupt controllers, and what is to be read from them.
#![allow(
    unsafe_code,
    reason = "the state of an irqchip is a union whose member its id selects"
)]

use kvm_bindings::{KVM_IRQCHIP_IOAPIC, KVM_PIT_SPEAKER_DUMMY, kvm_irqchip, kvm_pit_config};
use kvm_ioctls::VmFd;

/// Pins below belong to the legacy devices.
pub(crate) const FIRST_DEVICE_PIN: usize = 5;

/// Creates PIC, IO-APIC, LAPICs and PIT in the kernel; to be called before the first vCPU is.
pub(crate) fn create(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    vm.create_irq_chip()?;
    // The dummy speaker keeps port 0x61 in the kernel, where calibration loops on it.
    vm.create_pit2(kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    })
}

/// The redirection table of an IO-APIC; empty when `chip` is none.
pub(crate) fn redirections(chip: &kvm_irqchip) -> Vec<u64> {
    if chip.chip_id != KVM_IRQCHIP_IOAPIC {
        return Vec::new();
    }
    // SAFETY: the id says that `ioapic` is the member that KVM filled in, and every bit pattern is a valid one of it.
    unsafe { chip.chip.ioapic.redirtbl.iter().map(|entry| entry.bits).collect() }
}
