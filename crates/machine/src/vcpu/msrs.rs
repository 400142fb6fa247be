//! Model specific registers a kernel expects to find in a known state.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::VcpuError;

const TSC: u32 = 0x10;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const MISC_ENABLE: u32 = 0x1a0;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SYSCALL_MASK: u32 = 0xc000_0084;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

const FAST_STRINGS: u64 = 1;
const MTRR_ENABLED: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

const INITIAL: [(u32, u64); 11] = [
    (SYSENTER_CS, 0),
    (SYSENTER_ESP, 0),
    (SYSENTER_EIP, 0),
    (STAR, 0),
    (CSTAR, 0),
    (KERNEL_GS_BASE, 0),
    (SYSCALL_MASK, 0),
    (LSTAR, 0),
    (TSC, 0),
    (MISC_ENABLE, FAST_STRINGS),
    // Without it all memory is uncached as far as the guest can tell.
    (MTRR_DEF_TYPE, MTRR_ENABLED | WRITE_BACK),
];

/// Sets them all; KVM stops at the first that it refuses.
pub(super) fn set(vcpu: &VcpuFd) -> Result<(), VcpuError> {
    let entries = INITIAL.map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let msrs = Msrs::from_entries(&entries).map_err(|_| VcpuError::Msr { index: INITIAL[0].0 })?;
    let taken = vcpu
        .set_msrs(&msrs)
        .map_err(VcpuError::kvm("model specific registers"))?;
    match INITIAL.get(taken) {
        None => Ok(()),
        Some((index, _)) => Err(VcpuError::Msr { index: *index }),
    }
}
