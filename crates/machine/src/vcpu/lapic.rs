//! The local APIC's two interrupt pins, as a PC's firmware wires them: the 8259 on one, NMI on the other.

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::VcpuFd;

use super::VcpuError;

const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const DELIVERY_MODE: u32 = 0x700;
const NMI: u32 = 4 << 8;
const EXT_INT: u32 = 7 << 8;

pub(super) fn set(vcpu: &VcpuFd) -> Result<(), VcpuError> {
    let mut state = vcpu
        .get_lapic()
        .map_err(VcpuError::kvm("wish to tell its local APIC"))?;
    wire(&mut state);
    vcpu.set_lapic(&state).map_err(VcpuError::kvm("local APIC"))
}

fn wire(state: &mut kvm_lapic_state) {
    set_delivery_mode(state, LVT_LINT0, EXT_INT);
    set_delivery_mode(state, LVT_LINT1, NMI);
}

fn set_delivery_mode(state: &mut kvm_lapic_state, at: usize, mode: u32) {
    let register = std::array::from_fn(|i| state.regs[at + i].to_ne_bytes()[0]);
    let value = u32::from_le_bytes(register) & !DELIVERY_MODE | mode;
    for (place, byte) in state.regs[at..].iter_mut().zip(value.to_le_bytes()) {
        *place = std::ffi::c_char::from_ne_bytes([byte]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(state: &kvm_lapic_state, at: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|i| state.regs[at + i].to_ne_bytes()[0]))
    }

    #[test]
    fn pins_get_their_delivery_mode_and_keep_the_rest() {
        let mut state = kvm_lapic_state { regs: [-1; 1024] };
        wire(&mut state);
        assert_eq!(register(&state, 0x350), 0xffff_ffff);
        assert_eq!(register(&state, 0x360), 0xffff_fcff);
        assert_eq!((register(&state, 0x34c), register(&state, 0x364)), (u32::MAX, u32::MAX));
        let mut state = kvm_lapic_state { regs: [0; 1024] };
        wire(&mut state);
        assert_eq!((register(&state, 0x350), register(&state, 0x360)), (0x700, 0x400));
    }
}
