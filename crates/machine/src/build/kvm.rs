//! Opening KVM.

use std::io;

use kvm_ioctls::{Cap, Kvm, VmFd};

use super::BuildError;
use crate::irqchip;

/// The one version of the interface there has ever been (`KVM_API_VERSION`).
const API_VERSION: i32 = 12;

/// What is needed of KVM, by the name that its documentation has for it.
const CAPABILITIES: [(Cap, &str); 5] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
];

/// Opens KVM and sees that it has what is needed.
pub(super) fn open() -> Result<Kvm, BuildError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => BuildError::NoKvm,
        libc::EACCES | libc::EPERM => BuildError::KvmPermission,
        errno => BuildError::Kvm {
            what: "be opened",
            source: io::Error::from_raw_os_error(errno),
        },
    })?;
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(BuildError::KvmVersion(version));
    }
    match CAPABILITIES
        .into_iter()
        .find(|(capability, _)| !kvm.check_extension(*capability))
    {
        Some((_, name)) => Err(BuildError::KvmCapability(name)),
        None => Ok(kvm),
    }
}

/// Creates the VM and its interrupt controllers, which have to be there before the first vCPU.
pub(super) fn create_vm(kvm: &Kvm) -> Result<VmFd, BuildError> {
    let vm = kvm.create_vm().map_err(BuildError::kvm("create a VM"))?;
    let tss = usize::try_from(boot_params::layout::KVM_TSS).expect("an address below 4 GiB");
    vm.set_tss_address(tss)
        .map_err(BuildError::kvm("set the address of its TSS"))?;
    irqchip::create(&vm).map_err(BuildError::kvm("create the interrupt controllers"))?;
    Ok(vm)
}
