//! Opening KVM.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap};
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::BuildError;
use crate::irqchip::InterruptControllers;
use crate::plan::{Irqchip, Plan};

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

/// What the split irqchip needs beyond that.
const SPLIT_IRQCHIP: [(Cap, &str); 3] = [
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
];

/// What this host's KVM lacks for the machines of a plan that does not ask for another irqchip, by KVM's names. Nothing when
/// it cannot be opened.
#[must_use]
pub fn missing_capabilities() -> Vec<&'static str> {
    Kvm::new().map_or_else(
        |_| Vec::new(),
        |kvm| missing(&kvm, CAPABILITIES.iter().chain(&SPLIT_IRQCHIP)).collect(),
    )
}

fn missing<'a>(
    kvm: &'a Kvm,
    wanted: impl Iterator<Item = &'a (Cap, &'static str)> + 'a,
) -> impl Iterator<Item = &'static str> + 'a {
    wanted
        .filter(|(capability, _)| !kvm.check_extension(*capability))
        .map(|(_, name)| *name)
}

/// Opens KVM and sees that it has what the plan needs.
pub(super) fn open(plan: &Plan) -> Result<Kvm, BuildError> {
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
    let for_irqchip: &[_] = match plan.irqchip.kind {
        Irqchip::InKernel => &[],
        Irqchip::Split => &SPLIT_IRQCHIP,
    };
    let lacks = missing(&kvm, CAPABILITIES.iter().chain(for_irqchip)).next();
    match lacks {
        Some(name) => Err(BuildError::KvmCapability(name)),
        None => Ok(kvm),
    }
}

/// Creates the VM and its interrupt controllers, which have to be there before the first vCPU.
pub(super) fn create_vm(kvm: &Kvm, plan: &Plan) -> Result<(Arc<VmFd>, InterruptControllers), BuildError> {
    let vm = kvm.create_vm().map_err(BuildError::kvm("create a VM"))?;
    let tss = usize::try_from(boot_params::layout::KVM_TSS).expect("an address below 4 GiB");
    vm.set_tss_address(tss)
        .map_err(BuildError::kvm("set the address of its TSS"))?;
    take_performance_counters(&vm).map_err(BuildError::kvm("take its performance counters away"))?;
    let vm = Arc::new(vm);
    let controllers =
        InterruptControllers::create(&vm, plan).map_err(BuildError::kvm("create the interrupt controllers"))?;
    Ok((vm, controllers))
}

/// The guest is not shown any, but KVM would see to them with each instruction that it emulates, and would let who tries
/// program the host's. To be called before the first vCPU is made; a KVM older than Linux 5.18 always has them.
fn take_performance_counters(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    let can = vm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into());
    if !u32::try_from(can).is_ok_and(|can| can & KVM_PMU_CAP_DISABLE != 0) {
        return Ok(());
    }
    let mut capability = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        ..Default::default()
    };
    capability.args[0] = KVM_PMU_CAP_DISABLE.into();
    vm.enable_cap(&capability)
}
