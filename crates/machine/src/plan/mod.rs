//! The first step: from what was asked for to what the machine consists of, without touching the host.
//!
//! Each question has a module of its own: [`vsock`] for the device that is there only when needed, `devices` for the list
//! in its fixed order, [`irqchip`] for the interrupt controllers that have lines enough for them, `registers` for where
//! those of a device lie, `cmdline` for the kernel's words, `init` for what the guest's init is told. [`plan()`] asks them
//! and places what they named.

mod cmdline;
mod devices;
mod error;
mod init;
pub mod irqchip;
mod registers;
mod text;
mod validate;
pub mod vsock;

use boot_params::memory::Region;
use resource_alloc::{DeviceResources, ResourceAllocator};
use serde::{Serialize, Serializer};
use virtio_transport::MMIO_LEN;

pub use devices::{ConsolePort, DeviceKind, MountPoints, PortRole, ServedBy, SharePlan, VsockPlan};
pub use error::PlanError;
pub use irqchip::{Irqchip, IrqchipDecision};
pub use registers::InterruptRegisters;
pub use vsock::VsockDecision;

use crate::limits::{KernelKind, KernelTraits, Limits};
use crate::spec::Spec;

/// Everything that was decided. The same spec and limits always give the same plan; guest-visible numbers in it are ABI.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The number of vCPUs.
    pub cpus: u32,
    /// Guest memory: RAM without holes but the 32-bit gap.
    #[serde(serialize_with = "regions")]
    pub memory: Vec<Region>,
    /// The kernel that the plan was made for.
    pub kernel: KernelTraits,
    /// Whether an initramfs is loaded.
    pub initramfs: bool,
    /// Whether COM1 is there. The bundle's kernel has no driver for it.
    pub serial: bool,
    /// Where the interrupt controllers are, and why.
    pub irqchip: IrqchipDecision,
    /// How many pins the IO-APIC has that the guest is told of.
    pub io_apic_pins: u32,
    /// Every device in the order of its registers.
    pub devices: Vec<DevicePlan>,
    /// Whether there is a vsock device, and why.
    pub vsock: VsockDecision,
    /// The whole kernel command line.
    pub cmdline: String,
    /// What the guest's init is told; `None` when there is no root share for it to live in.
    pub init: Option<guest_init::Config>,
}

/// One device and where the guest finds it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DevicePlan {
    /// What it is called in messages and threads.
    pub name: String,
    /// Its interrupt line (GSI).
    pub irq: u32,
    /// First byte of its registers (guest physical).
    pub mmio_base: u64,
    /// Length of its registers in bytes.
    pub mmio_len: u64,
    /// How the guest gets at a part of them.
    pub interrupt_registers: InterruptRegisters,
    /// What it is.
    pub kind: DeviceKind,
}

impl Plan {
    /// Whether the guest's kernel is known to take a device before its init runs: the bundle's does, since init lies on one.
    /// Its end without any device is no orderly one then.
    #[must_use]
    pub fn drivers_before_init(&self) -> bool {
        self.init.is_some() && self.kernel.kind == KernelKind::Bundle
    }
}

/// Decides what the machine consists of.
///
/// # Errors
/// [`PlanError`] for a spec that contradicts itself, cannot be carried to the guest, or asks for more than there is.
pub fn plan(spec: &Spec, limits: &Limits) -> Result<Plan, PlanError> {
    validate::spec(spec, limits)?;
    let vsock = vsock::attachment(&validate::vsock_inputs(spec, limits))?;
    let kinds = devices::in_order(spec, &vsock);
    let irqchip = irqchip::choose(spec.irqchip, kinds.len(), &limits.kernel, &limits.irq_layouts);
    let places = place(&kinds, irqchip.kind, limits)?;
    let devices: Vec<DevicePlan> = kinds
        .into_iter()
        .zip(places)
        .map(|((name, kind), at)| at_place(name, kind, at, &limits.kernel))
        .collect();
    let memory = boot_params::ram_regions(spec.mem_mib << 20).map_err(|_| PlanError::Memory {
        asked_mib: spec.mem_mib,
    })?;
    registers::fit_into_slots(memory.len(), devices.len(), limits.max_memslots)?;
    let cmdline = cmdline::assemble(spec, limits, &vsock, &devices)?;
    Ok(Plan {
        cpus: spec.cpus,
        memory,
        kernel: limits.kernel.clone(),
        initramfs: spec.initramfs,
        serial: limits.kernel.kind != KernelKind::Bundle,
        irqchip,
        io_apic_pins: devices::io_apic_pins(&devices),
        init: init::config(spec, &vsock, &devices),
        devices,
        vsock,
        cmdline,
    })
}

/// Places the devices on the lines of the irqchip, all or none.
fn place(kinds: &[(String, DeviceKind)], irqchip: Irqchip, limits: &Limits) -> Result<Vec<DeviceResources>, PlanError> {
    let names = kinds.iter().map(|(name, _)| name.as_str());
    let layout = registers::with_wide_slots(irqchip.layout(&limits.irq_layouts));
    let mut allocator = ResourceAllocator::new(&layout.map_err(|source| PlanError::Window { source })?);
    allocator
        .allocate_devices(names)
        .map_err(|source| PlanError::Devices { irqchip, source })
}

fn at_place(name: String, kind: DeviceKind, at: DeviceResources, kernel: &KernelTraits) -> DevicePlan {
    let interrupt_registers = InterruptRegisters::of(&kind, kernel);
    DevicePlan {
        name,
        irq: at.irq.0,
        mmio_base: at.mmio.base + registers::OFFSET,
        mmio_len: MMIO_LEN,
        interrupt_registers,
        kind,
    }
}

fn regions<S: Serializer>(regions: &[Region], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(regions.iter().map(|region| (region.start, region.len)))
}
