//! What goes in and what comes out, and what both entries have in common.

use crate::layout::{COMMAND_LINE, COMMAND_LINE_MAX, HIGH_MEMORY};
use crate::{BootParamsError, BootRegisters, Region, SetupHeader, memory};

/// Bytes and the guest physical address they go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Guest physical address of the first byte.
    pub address: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// `bytes` at `address`.
    pub fn new(address: u64, bytes: Vec<u8>) -> Blob {
        Blob { address, bytes }
    }

    /// The addresses the bytes take up.
    pub fn region(&self) -> Region {
        Region::new(self.address, self.bytes.len() as u64)
    }
}

/// All that is needed to start a kernel which is already in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootImage {
    /// What to write to guest memory, in no particular order; no two overlap.
    pub blobs: Vec<Blob>,
    /// What to load into each vCPU.
    pub registers: BootRegisters,
}

/// What a boot is made from.
#[derive(Debug, Clone)]
pub struct BootConfig<'a> {
    /// The kernel's entry point, a guest physical address.
    pub entry: u64,
    /// RAM, from [`ram_regions`](crate::ram_regions).
    pub ram: &'a [Region],
    /// The whole command line, without a NUL.
    pub command_line: &'a [u8],
    /// Where the initial RAM file system was put, if there is one; see [`initramfs::place`](crate::initramfs::place).
    pub initramfs: Option<Region>,
    /// CPUs the guest may ever have, 1 to 254.
    pub cpus: u32,
    /// Pins of the IO-APIC: 24 for KVM's own, as many as the monitor emulates otherwise.
    pub io_apic_pins: u32,
    /// The header of a bzImage; `None` for any other kernel, and unused by the PVH entry.
    pub setup_header: Option<&'a SetupHeader>,
}

/// The command line with its closing NUL, in its place.
///
/// # Errors
/// [`BootParamsError::CommandLineTooLong`] if it does not fit into the memory set aside (what the kernel takes is less and
/// for the caller to check), [`BootParamsError::CommandLineHasNul`] if the kernel would read only a part.
pub(crate) fn command_line(text: &[u8]) -> Result<Blob, BootParamsError> {
    if let Some(at) = text.iter().position(|byte| *byte == 0) {
        return Err(BootParamsError::CommandLineHasNul { at });
    }
    let len = text.len().saturating_add(1);
    if len > COMMAND_LINE_MAX {
        return Err(BootParamsError::CommandLineTooLong {
            len,
            max: COMMAND_LINE_MAX,
        });
    }
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(text);
    bytes.push(0);
    Ok(Blob::new(COMMAND_LINE, bytes))
}

/// Refuses memory that ends inside the boot structures.
pub(crate) fn check_room(ram: &[Region]) -> Result<(), BootParamsError> {
    let end = memory::low_end(ram);
    if end < HIGH_MEMORY {
        Err(BootParamsError::NoRoomForBootData {
            end,
            needed: HIGH_MEMORY,
        })
    } else {
        Ok(())
    }
}
