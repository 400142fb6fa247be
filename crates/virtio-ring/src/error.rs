//! What can go wrong with a ring and with a chain.

use vm_memory::GuestMemoryError;

/// Why a ring cannot go on. The device tells the driver with DEVICE_NEEDS_RESET.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The driver claims more chains in flight than the queue can hold. The ring is stopped.
    #[error("avail.idx {avail_idx} is more than the queue size {size} ahead of used.idx {next_used}")]
    Broken {
        /// What the driver wrote.
        avail_idx: u16,
        /// Used elements pushed so far, modulo 2^16.
        next_used: u16,
        /// The queue size.
        size: u16,
    },
    /// An entry of the available ring names no descriptor, so there is nothing to give back. The ring is stopped.
    #[error("available ring names descriptor {head} of {size}")]
    HeadOutOfRange {
        /// What the driver wrote.
        head: u16,
        /// The queue size.
        size: u16,
    },
    /// The ring is not in guest memory. The ring is stopped.
    #[error("cannot access the ring")]
    Memory(#[from] GuestMemoryError),
    /// The device gave back what it had not taken: a defect of the device, not of the driver.
    #[error("descriptor {head} is given back but no chain is out")]
    NotPopped {
        /// What the device passed.
        head: u16,
    },
}

/// Why bytes of a chain cannot be moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The chain has fewer bytes of this kind.
    #[error("{len} bytes at offset {offset} do not fit into {available}")]
    OutOfRange {
        /// The offset asked for.
        offset: usize,
        /// The number of bytes asked for.
        len: usize,
        /// How many the chain has.
        available: usize,
    },
    /// Guest memory cannot be accessed.
    #[error("cannot access a buffer of the chain")]
    Memory(#[from] GuestMemoryError),
}
