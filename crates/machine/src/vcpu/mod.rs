//! Gives a vCPU its identity and the state it starts with.

mod cpuid;
mod fpu;
mod lapic;
mod msrs;
mod regs;

use boot_params::BootRegisters;
use kvm_bindings::CpuId;
use kvm_ioctls::VcpuFd;

/// Why a vCPU could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VcpuError {
    /// The description of the processor is too long.
    #[error("its {entries} CPUID entries are more than KVM takes")]
    Cpuid {
        /// How many there are.
        entries: usize,
    },
    /// KVM refused a part of the state.
    #[error("KVM refuses its {what}")]
    Kvm {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// KVM took only some of the model specific registers.
    #[error("KVM refuses the model specific register {index:#x}")]
    Msr {
        /// The first one that it refused.
        index: u32,
    },
}

impl VcpuError {
    fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { what, source }
    }
}

/// Configures vCPU `index` of `count`, in the order that KVM wants: what the processor is, then what is in it.
///
/// `supported` is what KVM can show to a guest on this host (`KVM_GET_SUPPORTED_CPUID`), the same for every vCPU.
/// `registers` go to each of them: all but the first wait for the INIT that resets them.
///
/// # Errors
/// [`VcpuError`] with the part that failed.
pub(crate) fn configure(
    vcpu: &VcpuFd,
    index: u32,
    count: u32,
    supported: &CpuId,
    registers: &BootRegisters,
) -> Result<(), VcpuError> {
    let entries = cpuid::for_vcpu(supported.as_slice(), index, count);
    let cpuid = CpuId::from_entries(&entries).map_err(|_| VcpuError::Cpuid { entries: entries.len() })?;
    vcpu.set_cpuid2(&cpuid).map_err(VcpuError::kvm("CPUID"))?;
    msrs::set(vcpu)?;
    vcpu.set_regs(&regs::general(registers))
        .map_err(VcpuError::kvm("general registers"))?;
    vcpu.set_fpu(&fpu::initial())
        .map_err(VcpuError::kvm("floating point state"))?;
    let reset = vcpu
        .get_sregs()
        .map_err(VcpuError::kvm("wish to tell its special registers"))?;
    vcpu.set_sregs(&regs::special(reset, registers))
        .map_err(VcpuError::kvm("special registers"))?;
    lapic::set(vcpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_params::long_mode;
    use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
    use kvm_ioctls::Kvm;

    #[test]
    fn configured_vcpus_have_what_they_were_given() {
        let Ok(kvm) = Kvm::new() else {
            return eprintln!("skipped: this test needs /dev/kvm");
        };
        let vm = kvm.create_vm().unwrap();
        vm.create_irq_chip().unwrap();
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
        for index in 0..2 {
            let vcpu = vm.create_vcpu(u64::from(index)).unwrap();
            configure(&vcpu, index, 2, &supported, &long_mode::registers(0x100_0123)).unwrap();
            assert_eq!(vcpu.get_regs().unwrap().rip, 0x100_0123);
            assert_eq!(vcpu.get_sregs().unwrap().cr3, 0x9000);
            let cpuid = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
            let features = cpuid.as_slice().iter().find(|entry| entry.function == 1).unwrap();
            assert_eq!(features.ebx >> 24, index);
        }
    }
}
