//! The numbers of the aarch64 memory map. Only constants so far: there is no aarch64 machine yet, and these keep its place.

/// End of the GICv3 distributor; the redistributors lie below it.
pub const GIC_END: u64 = 0x0a00_0000;
/// Bytes of the distributor.
pub const GIC_DISTRIBUTOR_LEN: u64 = 0x1_0000;
/// Bytes of the redistributors of one vCPU.
pub const GIC_REDISTRIBUTOR_LEN: u64 = 0x2_0000;
/// The first MMIO slot of a device.
pub const MMIO: u64 = 0x0a00_1000;
/// RAM of a guest whose kernel is entered without firmware; its `Image` is loaded and entered here.
pub const RAM: u64 = 0x8000_0000;
/// End of the addresses RAM may take up.
pub const RAM_END_MAX: u64 = 0xff_8000_0000;
/// Bytes of the device tree, which lies at the end of RAM.
pub const FDT_MAX: u64 = 0x20_0000;
/// The first interrupt of a device (SPI 0).
pub const FIRST_IRQ: u32 = 32;
/// The last interrupt of a device.
pub const LAST_IRQ: u32 = 223;
/// PSTATE at the first instruction: EL1h, with debug, SError, IRQ and FIQ masked.
pub const PSTATE_EL1H: u64 = 0x3c5;
