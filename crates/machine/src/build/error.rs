//! Why a plan could not be carried out.

use std::io;
use std::path::PathBuf;

use crate::kernel::KernelError;
use crate::vcpu::VcpuError;

/// Why a plan could not be carried out. Nothing has been started then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no KVM on this machine.
    #[error(
        "there is no /dev/kvm: load the kernel module kvm_intel or kvm_amd, or enable virtualisation in the firmware"
    )]
    NoKvm,
    /// The user may not use KVM.
    #[error("permission to open /dev/kvm is denied: add the user to the group `kvm`, or run as root")]
    KvmPermission,
    /// This is not the KVM that all kernels of the last decade have.
    #[error("the KVM interface has version {0}, not 12")]
    KvmVersion(i32),
    /// KVM lacks something.
    #[error("this KVM lacks the capability {0}")]
    KvmCapability(&'static str),
    /// KVM refused something.
    #[error("KVM cannot {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Why it refused.
        #[source]
        source: io::Error,
    },
    /// The host does not give the memory.
    #[error("cannot reserve {mib} MiB of memory for the guest")]
    Memory {
        /// How much.
        mib: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel cannot be loaded.
    #[error("cannot load the kernel")]
    Kernel(#[from] KernelError),
    /// The kernel is not the one that the plan was made for.
    #[error("the plan was made for another kernel")]
    OtherKernel,
    /// The plan has an initramfs and none was given, or the other way round.
    #[error("the plan and what is given disagree about an initramfs")]
    OtherInitramfs,
    /// The boot structures do not fit.
    #[error("cannot lay out the boot data")]
    Boot(#[from] boot_params::BootParamsError),
    /// There is no room for the devices' registers.
    #[error("cannot reserve memory for the devices' registers")]
    Registers {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bundle's kernel cannot be mapped.
    #[error("cannot map the kernel into the guest's memory")]
    MapKernel {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The boot data does not fit into the guest's memory.
    #[error("cannot write the boot data at {address:#x}")]
    BootData {
        /// Where it was to go (guest physical).
        address: u64,
        /// Why.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    /// A vCPU cannot be set up.
    #[error("cannot set up vCPU {index}")]
    Vcpu {
        /// Which vCPU.
        index: u32,
        /// Why.
        #[source]
        source: VcpuError,
    },
    /// A shared folder or file cannot be used.
    #[error("cannot share `{}`", path.display())]
    Share {
        /// Where it is on the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file was to be shared as a folder, or a folder as a file.
    #[error("cannot share `{}` as a {wanted}: it is a {found}", path.display())]
    ShareKind {
        /// Where it is on the host.
        path: PathBuf,
        /// What it was to be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A device cannot be made.
    #[error("cannot make the device `{name}`")]
    Device {
        /// Its name in the plan.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The plan has a device that this version does not drive yet.
    #[error("this version can plan a net device, but not run one yet")]
    NetDevice,
}

impl BuildError {
    /// For a call of KVM that failed.
    pub(super) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm {
            what,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }

    /// For a device that cannot be made.
    pub(super) fn device<E>(name: &str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |error| Self::Device {
            name: name.to_owned(),
            source: error.into(),
        }
    }
}
