//! Why there is no plan.

use resource_alloc::{AllocError, LayoutError};

use super::Irqchip;

/// Why a spec cannot become a machine. Each message says what is wrong, with what, and what would be right.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Two settings exclude each other.
    #[error("`{one}` and `{other}` exclude each other: {why}")]
    Contradiction {
        /// One setting.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// Why both cannot hold.
        why: &'static str,
    },
    /// The number of vCPUs is not one that a machine can have.
    #[error("{asked} vCPUs are not possible: ask for 1 to {max}")]
    Cpus {
        /// How many were asked for.
        asked: u32,
        /// The most there can be.
        max: u32,
    },
    /// The kernel does not boot in so little memory.
    #[error("{asked_mib} MiB of memory are too little for this kernel: it needs {min_mib} MiB")]
    TooLittleMemory {
        /// What was asked for.
        asked_mib: u64,
        /// What it needs.
        min_mib: u64,
    },
    /// There is no guest physical address space for so much memory.
    #[error("{asked_mib} MiB of memory are more than a machine can address")]
    Memory {
        /// What was asked for.
        asked_mib: u64,
    },
    /// There is nothing to start from.
    #[error("there is neither a root folder nor an initramfs for the guest to start from")]
    NothingToStart,
    /// Something that the guest's init would do was asked for, but there is no root share that the init could live in.
    #[error("{what} needs a root folder: without one our init does not run in the guest")]
    NeedsRoot {
        /// What was asked for.
        what: &'static str,
    },
    /// The root was asked for as a single file.
    #[error("the root is a single file: a guest starts from a folder")]
    RootIsFile,
    /// A share cannot be mounted where it is wanted.
    #[error("a share cannot be mounted at `{path}` in the guest: {why}")]
    MountPoint {
        /// Where it was wanted.
        path: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A word of the program's command line, environment or set-up cannot be carried to the guest.
    #[error("{what} `{value}` cannot be carried to the guest: {why}")]
    Text {
        /// What it is.
        what: &'static str,
        /// Its value, printable.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A port that is not one.
    #[error("{port} is not a port that can be {what}: {why}")]
    Port {
        /// The port.
        port: u32,
        /// What was to be done with it.
        what: &'static str,
        /// What is wrong with that.
        why: &'static str,
    },
    /// There are not enough IRQ lines or MMIO slots.
    #[error("the machine has too many devices for the {irqchip} irqchip")]
    Devices {
        /// The irqchip whose lines they were to have.
        irqchip: Irqchip,
        /// Which budget is exhausted, and who holds it.
        #[source]
        source: AllocError,
    },
    /// There are not enough memory slots.
    #[error(
        "the machine needs {memory} memory slots for its memory and {devices} for its devices, and may have {max}: \
         ask for fewer devices"
    )]
    MemorySlots {
        /// How many regions its memory has: a slot each.
        memory: usize,
        /// How many devices it has: their registers are a slot each.
        devices: usize,
        /// The most there can be.
        max: u32,
    },
    /// The window for the devices' registers cannot be divided among them.
    #[error("the window for the devices' registers cannot be divided into slots for them")]
    Window {
        /// What is wrong with it.
        #[source]
        source: LayoutError,
    },
    /// The kernel's command line cannot be made.
    #[error("the kernel command line cannot be made")]
    Cmdline(#[source] cmdline::CmdlineError),
    /// A word to be left out of the kernel's command line is not in it.
    #[error("the kernel command line has no word `{0}` to leave out")]
    NoSuchWord(String),
}
