//! The floating point unit as a PC's firmware leaves it.

use kvm_bindings::kvm_fpu;

/// All exceptions masked, 64-bit precision (the state after FINIT).
const CONTROL_WORD: u16 = 0x37f;
/// All SSE exceptions masked (the state after reset).
const MXCSR: u32 = 0x1f80;

pub(super) fn initial() -> kvm_fpu {
    kvm_fpu {
        fcw: CONTROL_WORD,
        mxcsr: MXCSR,
        ..kvm_fpu::default()
    }
}
