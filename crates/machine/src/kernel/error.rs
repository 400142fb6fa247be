//! What can be wrong with a kernel image.

use std::io;
use std::path::PathBuf;

/// A kernel image or initramfs that cannot be used. The message is one sentence that begins with the path.
#[derive(Debug, thiserror::Error)]
#[error("{} {reason}", path.display())]
pub struct KernelError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: KernelErrorReason,
}

/// Why a file cannot be used, as the rest of a sentence that begins with its path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelErrorReason {
    /// It cannot be opened or read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It is a folder, a device, a FIFO or a socket.
    #[error("is not a file")]
    NotAFile,
    /// It is in none of the formats.
    #[error("is not a kernel: neither a libkrunfw bundle nor a bzImage nor an ELF vmlinux")]
    NotAKernel,
    /// It is compressed as a whole.
    #[error("is compressed with {0}: unpack it first")]
    Compressed(&'static str),
    /// It is for another architecture.
    #[error("is an ELF file for another machine (ELF machine {machine}), and the guest is x86_64")]
    OtherMachine {
        /// The file's `e_machine`.
        machine: u16,
    },
    /// A shared library without a kernel in it.
    #[error("is a shared library without a kernel in it: it has no symbol KERNEL_BUNDLE")]
    NoBundle,
    /// A bundle whose addresses are not known.
    #[error("is a libkrunfw bundle of an unknown version (build id {build_id}): version 5.6.1 is known")]
    UnknownBundle {
        /// Its build id in hexadecimal digits, or `none`.
        build_id: String,
    },
    /// What it says about itself cannot be.
    #[error("is a damaged kernel image: {0}")]
    Damaged(&'static str),
    /// A bzImage that cannot be used.
    #[error("cannot be booted: {0}")]
    BzImage(boot_params::BootParamsError),
    /// The kernel does not fit into the guest's memory.
    #[error("needs guest memory from {start:#x} to {end:#x}, which this guest does not have")]
    OutsideMemory {
        /// First guest physical address.
        start: u64,
        /// The first one after it.
        end: u64,
    },
    /// There is no place for the initramfs.
    #[error("cannot be placed in the guest's memory: {0}")]
    Place(boot_params::BootParamsError),
    /// Copying to guest memory failed.
    #[error("cannot be copied into the guest's memory: {0}")]
    Load(String),
}
