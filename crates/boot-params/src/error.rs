//! What can be wrong with a boot configuration.

use thiserror::Error;

/// Why no boot data can be made from what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BootParamsError {
    /// A guest without memory.
    #[error("a guest needs memory, and none was asked for")]
    NoMemory,
    /// More memory than a guest's kernel can map.
    #[error("{asked} bytes of guest memory are more than the {max} bytes that a kernel with four-level paging can map")]
    TooMuchMemory {
        /// Bytes asked for.
        asked: u64,
        /// The most that fits, in bytes.
        max: u64,
    },
    /// The fixed boot structures do not fit into the guest's memory.
    #[error("the guest's memory ends at {end:#x}, below {needed:#x}, where its boot structures end")]
    NoRoomForBootData {
        /// End of low memory, a guest physical address.
        end: u64,
        /// End of the boot structures, a guest physical address.
        needed: u64,
    },
    /// A number of CPUs that the MP table cannot describe.
    #[error("an MP table describes 1 to {max} CPUs, not {asked}")]
    CpuCount {
        /// CPUs asked for.
        asked: u32,
        /// The most that can be described.
        max: u32,
    },
    /// A number of IO-APIC pins that the MP table cannot describe.
    #[error("an IO-APIC has 1 to {max} pins, not {asked}")]
    PinCount {
        /// Pins asked for.
        asked: u32,
        /// The most that can be described.
        max: u32,
    },
    /// A memory map of more entries than its table holds.
    #[error("the memory map has {entries} entries, and its table holds {max}")]
    MemoryMapTooLong {
        /// Entries in the map.
        entries: usize,
        /// The most that fit.
        max: usize,
    },
    /// A command line that does not fit into the memory set aside for it.
    #[error("the command line needs {len} bytes with its closing NUL, and {max} are set aside")]
    CommandLineTooLong {
        /// Bytes needed, closing NUL included.
        len: usize,
        /// Bytes set aside.
        max: usize,
    },
    /// A NUL inside the command line, where the kernel would stop reading.
    #[error("the command line has a NUL at byte {at}, where the kernel would stop reading")]
    CommandLineHasNul {
        /// Offset of the NUL.
        at: usize,
    },
    /// An entry point outside the 1 GiB that the boot page tables map.
    #[error("the kernel's entry point {entry:#x} is outside the first GiB, which the boot page tables map")]
    EntryNotMapped {
        /// The entry point, a guest physical address.
        entry: u64,
    },
    /// A PVH entry point that a 32-bit CPU cannot reach.
    #[error("the kernel's PVH entry point {entry:#x} is above 4 GiB")]
    EntryNotReachable {
        /// The entry point, a guest physical address.
        entry: u64,
    },
    /// An initial RAM file system for which there is no room.
    #[error("an initramfs of {size} bytes does not fit between {low:#x}, where the kernel ends, and {high:#x}")]
    NoRoomForInitramfs {
        /// Its size in bytes.
        size: u64,
        /// End of the kernel's own area.
        low: u64,
        /// The end of what the kernel can take it from.
        high: u64,
    },
    /// An initial RAM file system placed where the 32-bit boot fields cannot point.
    #[error("an initramfs at {address:#x} of {size} bytes is above 4 GiB, where the boot protocol cannot point")]
    InitramfsTooHigh {
        /// Its guest physical address.
        address: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// A file that is no bzImage.
    #[error("this is not a bzImage: {0}")]
    NotBzImage(&'static str),
    /// A bzImage without the 64-bit entry point.
    #[error(
        "this bzImage (boot protocol {version:#06x}) has no 64-bit entry point; boot protocol 0x020c with it is needed"
    )]
    NoLongModeEntry {
        /// Version of its boot protocol.
        version: u16,
    },
}
