//! A virtual machine of a few real-mode instructions, made without any crate of ours: shows that KVM works here at all.

use anyhow::{Context, Result, bail};
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const CODE: [u8; 8] = [
    0xb0, 0x2a, // mov al, 42
    0x04, 0x01, // add al, 1
    0xe6, 0x80, // out 0x80, al
    0xf4, // hlt
    0x90,
];
const CODE_ADDRESS: u64 = 0x1000;

/// Runs the guest and returns the byte that it wrote to port 0x80.
pub(crate) fn byte_written() -> Result<u8> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x4000)])?;
    memory.write_slice(&CODE, GuestAddress(CODE_ADDRESS))?;
    sys::give_memory(&vm, &memory)?;
    let mut vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?)
        .context("KVM_SET_CPUID2")?;
    let mut special = vcpu.get_sregs()?;
    (special.cs.base, special.cs.selector) = (0, 0);
    vcpu.set_sregs(&special).context("KVM_SET_SREGS")?;
    let mut general = vcpu.get_regs()?;
    (general.rip, general.rflags) = (CODE_ADDRESS, 2);
    vcpu.set_regs(&general).context("KVM_SET_REGS")?;
    let mut written = None;
    loop {
        match vcpu.run().context("KVM_RUN")? {
            VcpuExit::IoOut(0x80, [byte]) => written = Some(*byte),
            VcpuExit::Hlt => return written.context("the guest halted before it wrote"),
            other => bail!("unexpected exit {other:?}"),
        }
    }
}

/// Kernel calls.
#[allow(unsafe_code, reason = "KVM takes an address of ours")]
mod sys {
    use anyhow::{Context, Result};
    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::VmFd;
    use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

    /// Gives the first region to the virtual machine.
    pub(super) fn give_memory(vm: &VmFd, memory: &GuestMemoryMmap<()>) -> Result<()> {
        let region = memory.iter().next().context("no memory")?;
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: memory.get_host_address(region.start_addr())? as u64,
        };
        // SAFETY: the region is mapped as long as `memory` lives; the caller keeps it longer than the machine runs.
        unsafe { vm.set_user_memory_region(slot) }.context("KVM_SET_USER_MEMORY_REGION")
    }
}
