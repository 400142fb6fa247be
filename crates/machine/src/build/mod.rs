//! The second step: carry a plan out. Nothing is decided here.

mod descriptors;
mod devices;
mod error;
mod kvm;
mod memory;
mod patient;
mod registers;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use boot_params::{BootConfig, BootImage, layout, long_mode, pvh};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::GuestMemoryMmap;

pub use error::BuildError;
pub use kvm::missing_capabilities;
use patient::PatientWriter;
use registers::RegisterPages;

use crate::irqchip::InterruptControllers;
use crate::kernel::{EntryPoint, KernelImage};
use crate::legacy::{self, Com1Wiring, Legacy, PortBus};
use crate::plan::Plan;
use crate::run::{Control, End, Machine, Surroundings, Vcpu};
use crate::{KernelKind, vcpu};

const KEYBOARD_IRQ: u32 = 1;
const COM1_IRQ: u32 = 4;

/// What of the host goes into a machine besides the shares, which the plan names by path.
pub struct Resources {
    /// The kernel that the plan was made for.
    pub kernel: KernelImage,
    /// The initramfs, when the plan has one.
    pub initramfs: Option<File>,
    /// Where the guest's console ends.
    pub stdio: HostStdio,
}

/// The host's ends of the guest's standard streams and of its terminal. What is missing is empty, or swallows.
#[derive(Default)]
pub struct HostStdio {
    /// What the guest reads.
    pub stdin: Option<OwnedFd>,
    /// Where its output goes.
    pub stdout: Option<OwnedFd>,
    /// Where its messages go, and the kernel's when stdout is not a terminal.
    pub stderr: Option<OwnedFd>,
}

/// Carries the plan out up to the point where the vCPUs can be run.
///
/// # Errors
/// [`BuildError`]; all that was opened is closed again.
pub fn build(plan: &Plan, resources: Resources) -> Result<Machine, BuildError> {
    let Resources {
        kernel,
        initramfs,
        stdio,
    } = resources;
    if *kernel.traits() != plan.kernel {
        return Err(BuildError::OtherKernel);
    }
    let kvm = kvm::open(plan)?;
    let (vm, irqchip) = kvm::create_vm(&kvm, plan)?;
    let mem = memory::reserve(&plan.memory)?;
    let control = Arc::new(Control::default());
    let com1 = com1_output(plan, &stdio)?;
    let registers = RegisterPages::reserve(&plan.devices, plan.memory.len())?;
    let mut devices = devices::make(plan, stdio, &vm, &mem, &control, registers.as_ref())?;
    if let Some(registers) = irqchip.registers() {
        devices.bus.add(layout::IO_APIC, layout::PAGE_SIZE, registers);
    }
    let boot = load(plan, &kernel, initramfs, &mem)?;
    memory::write(&mem, &boot.blobs)?;
    memory::register(&vm, &mem)?;
    if let Some(registers) = registers {
        registers.register(&kvm, &vm, &plan.devices)?;
    }
    let vcpus = vcpus(plan, &kvm, &vm, &boot)?;
    let ports = Arc::new(ports(plan, com1, &irqchip, &control));
    let around = Surroundings {
        control,
        mmio: Arc::new(devices.bus),
        ports,
        irqchip,
    };
    Ok(Machine {
        vcpus,
        around,
        wires: devices.wires,
        signals: devices.signals,
        drivers_first: plan.drivers_before_init(),
        mem,
    })
}

/// Loads the kernel and lays out what it is booted with.
fn load(
    plan: &Plan,
    kernel: &KernelImage,
    initramfs: Option<File>,
    mem: &GuestMemoryMmap,
) -> Result<BootImage, BuildError> {
    if plan.initramfs != initramfs.is_some() {
        return Err(BuildError::OtherInitramfs);
    }
    let entry = load_kernel(kernel, mem)?;
    let initramfs = initramfs
        .map(|file| kernel.load_initramfs(mem, &file, &entry))
        .transpose()?;
    let EntryPoint {
        address,
        ref setup_header,
        ..
    } = entry;
    let config = BootConfig {
        entry: address,
        ram: &plan.memory,
        command_line: plan.cmdline.as_bytes(),
        initramfs,
        cpus: plan.cpus,
        io_apic_pins: plan.io_apic_pins,
        setup_header: setup_header.as_ref(),
    };
    Ok(match plan.kernel.kind {
        KernelKind::Pvh => pvh::boot_image(&config)?,
        KernelKind::Bundle | KernelKind::BzImage | KernelKind::Elf => long_mode::boot_image(&config)?,
    })
}

/// The bundle is mapped over guest memory, so that only pages the guest writes to are copied; other formats are read.
fn load_kernel(kernel: &KernelImage, mem: &GuestMemoryMmap) -> Result<EntryPoint, BuildError> {
    match kernel.bundle_mapping()? {
        Some(mapping) => {
            memory::map(mem, &mapping)?;
            Ok(kernel.entry_point())
        }
        None => Ok(kernel.load(mem)?),
    }
}

fn vcpus(plan: &Plan, kvm: &Kvm, vm: &VmFd, boot: &BootImage) -> Result<Vec<Vcpu>, BuildError> {
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(BuildError::kvm("tell what processor it can show to the guest"))?;
    (0..plan.cpus)
        .map(|index| {
            let fd = vm
                .create_vcpu(u64::from(index))
                .map_err(BuildError::kvm("create a vCPU"))?;
            vcpu::configure(&fd, index, plan.cpus, &cpuid, &boot.registers)
                .map_err(|source| BuildError::Vcpu { index, source })?;
            Ok(Vcpu { index, fd })
        })
        .collect()
}

/// COM1, where there is one, ends where the kernel's messages do.
fn com1_output(plan: &Plan, stdio: &HostStdio) -> Result<Option<Box<dyn Write + Send>>, BuildError> {
    if !plan.serial {
        return Ok(None);
    }
    let fd = devices::duplicate(stdio.stderr.as_ref()).map_err(BuildError::device("COM1"))?;
    Ok(Some(fd.map_or_else(
        || Box::new(io::sink()) as _,
        |fd| Box::new(PatientWriter::new(fd)) as _,
    )))
}

fn ports(
    plan: &Plan,
    com1: Option<Box<dyn Write + Send>>,
    irqchip: &InterruptControllers,
    control: &Arc<Control>,
) -> PortBus {
    let control = Arc::clone(control);
    let com1 = com1.map(|output| Com1Wiring {
        output,
        irq: irqchip.line(COM1_IRQ),
    });
    legacy::ports(Legacy {
        reset: Box::new(move || control.end(End::Reset)),
        keyboard: irqchip.line(KEYBOARD_IRQ),
        com1,
        clock: Box::new(SystemTime::now),
        ram: &plan.memory,
    })
}
