//! Fixed guest physical addresses of an x86_64 guest. They are ABI: a saved guest or a test relies on them.

/// Size of a page, bytes.
pub const PAGE_SIZE: u64 = 0x1000;

/// The global descriptor table used until the kernel has its own.
pub const GDT: u64 = 0x500;
/// The interrupt descriptor table: one empty entry, since a fault here is fatal in any case.
pub const IDT: u64 = 0x520;
/// `hvm_start_info` of the PVH entry.
pub const PVH_START_INFO: u64 = 0x6000;
/// Module list of the PVH entry: one entry, the initramfs.
pub const PVH_MODULES: u64 = 0x6040;
/// The zero page (`struct boot_params`) of the 64-bit entry.
pub const ZERO_PAGE: u64 = 0x7000;
/// The memory map of the PVH entry; a guest has it or the zero page, never both.
pub const PVH_MEMORY_MAP: u64 = 0x7000;
/// Initial stack pointer; the stack grows down from here.
pub const STACK: u64 = 0x8ff0;
/// Top-level page table.
pub const PML4: u64 = 0x9000;
/// Second-level page table.
pub const PDPT: u64 = 0xa000;
/// Third-level page table: 512 entries of 2 MiB.
pub const PD: u64 = 0xb000;
/// What the boot page tables map: the first GiB, onto itself.
pub const IDENTITY_MAPPED: u64 = 1 << 30;
/// The kernel's command line, NUL-terminated.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes set aside for the command line. No kernel takes as many.
pub const COMMAND_LINE_MAX: usize = 0x1_0000;
/// The MP configuration table. Not in the last KiB of base memory with its pointer: 24 lines and 64 CPUs need 1,548 bytes.
pub const MP_TABLE: u64 = 0x9_d000;
/// The MP floating pointer: in the last KiB of 640 KiB of base memory, one of the places where a kernel looks for it.
pub const MP_FLOATING_POINTER: u64 = 0x9_fc00;
/// End of usable base memory.
pub const BASE_MEMORY_END: u64 = 0x9_fc00;
/// Start of memory above the legacy area.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// Where a kernel is loaded when nothing else is known.
pub const KERNEL: u64 = 0x100_0000;
/// Start of the 32-bit gap, which holds devices and no RAM. The first virtio-mmio slot is here.
pub const GAP_START: u64 = 0xd000_0000;
/// End of the 32-bit gap.
pub const GAP_END: u64 = 1 << 32;
/// The IO-APIC's registers.
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local APIC's registers.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// Three pages that KVM wants for itself on Intel hosts (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: u64 = 0xfffb_d000;
