//! The state of a vCPU at its first instruction, without any hypervisor's types.

/// A segment register with its hidden part, as the descriptor tables encode it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Selector: eight times the index into the GDT.
    pub selector: u16,
    /// First linear address.
    pub base: u64,
    /// Last offset, in bytes (granularity already applied).
    pub limit: u32,
    /// The type field, 4 bits.
    pub kind: u8,
    /// `P`: the segment is there.
    pub present: bool,
    /// `S`: code or data, not a system segment.
    pub code_or_data: bool,
    /// `D/B`: 32-bit operands or stack.
    pub big: bool,
    /// `L`: 64-bit code.
    pub long: bool,
    /// `G`: the limit counts pages.
    pub granular: bool,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DescriptorTable {
    /// Guest physical address of the table.
    pub base: u64,
    /// Last byte of the table.
    pub limit: u16,
}

/// `CR0.PE`: protected mode.
pub const CR0_PE: u64 = 1;
/// `CR0.ET`: always set on CPUs of this century.
pub const CR0_ET: u64 = 1 << 4;
/// `CR0.PG`: paging.
pub const CR0_PG: u64 = 1 << 31;
/// `CR4.PAE`: page tables of 64-bit entries.
pub const CR4_PAE: u64 = 1 << 5;
/// `EFER.LME`: long mode enabled.
pub const EFER_LME: u64 = 1 << 8;
/// `EFER.LMA`: long mode active.
pub const EFER_LMA: u64 = 1 << 10;
/// The bit of `RFLAGS` that is always set.
pub const RFLAGS_RESERVED: u64 = 1 << 1;

/// Register values for a vCPU's first instruction. General registers not named here are 0.
///
/// They are written to every vCPU: all but the first wait for INIT, which resets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BootRegisters {
    /// First instruction, a guest physical address.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Frame pointer.
    pub rbp: u64,
    /// Address of `hvm_start_info` (PVH).
    pub rbx: u64,
    /// Address of the zero page (64-bit entry).
    pub rsi: u64,
    /// Flags.
    pub rflags: u64,
    /// Code segment.
    pub cs: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdt: DescriptorTable,
    /// Interrupt descriptor table.
    pub idt: DescriptorTable,
    /// Control register 0, the whole of it.
    pub cr0: u64,
    /// Control register 3: the top-level page table.
    pub cr3: u64,
    /// Control register 4, the whole of it.
    pub cr4: u64,
    /// Extended feature enable register.
    pub efer: u64,
}
