//! The in-kernel interrupt controllers, and what is to be read from them.
#![allow(
    unsafe_code,
    reason = "the state of an irqchip is a union whose member its id selects"
)]

use std::io;

use kvm_bindings::{KVM_IRQCHIP_IOAPIC, KVM_PIT_SPEAKER_DUMMY, kvm_irqchip, kvm_pit_config};
use kvm_ioctls::VmFd;

const MASKED: u64 = 1 << 16;

/// Creates PIC, IO-APIC, LAPICs and PIT in the kernel; to be called before the first vCPU is.
pub(super) fn create(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    vm.create_irq_chip()?;
    // The dummy speaker keeps port 0x61 in the kernel, where calibration loops on it.
    vm.create_pit2(kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    })
}

/// Raises a line and lowers it again.
pub(super) fn pulse(vm: &VmFd, line: u32) -> io::Result<()> {
    let set = |level| vm.set_irq_line(line, level);
    set(true)
        .and_then(|()| set(false))
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// Whether a pin of the IO-APIC from `first` on is unmasked.
pub(super) fn has_unmasked(vm: &VmFd, first: usize) -> bool {
    let mut chip = kvm_irqchip {
        chip_id: KVM_IRQCHIP_IOAPIC,
        ..Default::default()
    };
    let told = vm.get_irqchip(&mut chip).is_ok();
    told && redirections(&chip).iter().skip(first).any(|entry| entry & MASKED == 0)
}

/// The redirection table of an IO-APIC; empty when `chip` is none.
fn redirections(chip: &kvm_irqchip) -> Vec<u64> {
    if chip.chip_id != KVM_IRQCHIP_IOAPIC {
        return Vec::new();
    }
    // SAFETY: the id says that `ioapic` is the member that KVM filled in, and every bit pattern is a valid one of it.
    unsafe { chip.chip.ioapic.redirtbl.iter().map(|entry| entry.bits).collect() }
}
