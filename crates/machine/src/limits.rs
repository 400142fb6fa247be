//! All that [`plan`](crate::plan()) knows of the world: what the kernel can take and what the host can give.

use resource_alloc::Layout;
use serde::Serialize;

/// The world a plan is made for. Plain data, so a plan can be made and tested anywhere.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What the guest kernel can take.
    pub kernel: KernelTraits,
    /// The lines and addresses that devices may have.
    pub irq_layouts: IrqLayouts,
    /// The most vCPUs that a machine may have.
    pub max_vcpus: u32,
    /// The most memory slots that a machine may have: one for each region of its memory and for each device's registers.
    pub max_memslots: u32,
    /// The operating system of the host.
    pub host_os: HostOs,
    /// Whether the machine is a confidential one, whose memory the host cannot read.
    pub confidential: bool,
}

impl Limits {
    /// An x86_64 Linux host with KVM, for a given kernel.
    #[must_use]
    pub fn new(kernel: KernelTraits) -> Self {
        Self {
            kernel,
            irq_layouts: IrqLayouts::x86_64(),
            max_vcpus: 64,
            max_memslots: 509,
            host_os: HostOs::Linux,
            confidential: false,
        }
    }

    /// The same for the kernel of the libkrunfw bundle; needs no file.
    #[must_use]
    pub fn bundle() -> Self {
        Self::new(KernelTraits::bundle())
    }
}

/// What devices may have with each of the irqchips that there are to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IrqLayouts {
    /// With all interrupt controllers in the kernel.
    pub in_kernel: Layout,
    /// With the IO-APIC in this process.
    pub split: Layout,
}

impl IrqLayouts {
    /// 19 lines in the kernel, 115 with the split irqchip.
    #[must_use]
    pub fn x86_64() -> Self {
        Self {
            in_kernel: Layout::x86_64_irqchip(),
            split: Layout::x86_64_split_irqchip(),
        }
    }
}

/// What matters of a kernel image before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelTraits {
    /// The image format.
    pub kind: KernelKind,
    /// The longest command line in bytes, the closing NUL counted (`COMMAND_LINE_SIZE`).
    pub cmdline_capacity: usize,
    /// The most arguments, and apart from them the most environment variables, that the kernel hands to init
    /// (`CONFIG_INIT_ENV_ARG_LIMIT`).
    pub init_args: usize,
    /// The least memory in bytes that it boots in.
    pub min_mem: u64,
    /// Whether power-off needs the word `krun.poweroff=i8042`: there is no ACPI in these machines.
    pub poweroff_token: bool,
    /// Whether it is known to take its clock from kvm-clock and its timer from the local APIC, and so needs no PIT.
    pub kvm_clock: bool,
    /// Whether it has no request with a share's device when it resets that: its driver waits for the answers first (Linux's
    /// `virtio_fs_drain_all_queues_locked`), and it has no kexec, after which another kernel has the memory that requests
    /// of the old one are answered into.
    pub resets_idle_shares: bool,
}

impl KernelTraits {
    /// The kernel of the libkrunfw 5.6.1 bundle.
    #[must_use]
    pub const fn bundle() -> Self {
        Self {
            kind: KernelKind::Bundle,
            cmdline_capacity: 16384,
            init_args: 256,
            min_mem: 64 << 20,
            poweroff_token: true,
            kvm_clock: true,
            resets_idle_shares: true,
        }
    }
}

/// The formats of kernel images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelKind {
    /// A libkrunfw shared library with the TSI kernel in it.
    Bundle,
    /// An x86 `bzImage`.
    BzImage,
    /// An ELF `vmlinux`, entered by the 64-bit boot protocol.
    Elf,
    /// An ELF `vmlinux` with a PVH entry note.
    Pvh,
}

/// The operating system of the host, as far as the plan depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostOs {
    /// Linux with KVM: everything is there.
    Linux,
    /// macOS: TSI has no AF_UNIX.
    MacOs,
    /// Windows: no TSI.
    Windows,
}
