//! The device's side of a split virtqueue (virtio 1.3, 2.7).
//!
//! [`Ring`] takes a configured [`virtio_queue::Queue`] and owns what happens after DRIVER_OK: it takes descriptor
//! chains from the available ring, puts used elements into the used ring in batches, and decides about notifications
//! in both directions. [`Chain`] is one chain as two byte streams, one to read and one to write, whatever the number
//! and the sizes of its descriptors (2.7.4.1).
//!
//! What the driver writes is not trusted. A chain that breaks the rules goes back to the driver with length 0 and is
//! counted; the next one is tried. A ring that breaks the rules stops for good, and says so once.
//!
//! # Contract
//! - Reuse one [`Chain`]: it grows to the longest chain seen and no further.
//! - Give back each chain that [`Ring::pop`] returned, with [`Ring::push_used`] or [`Ring::undo_pop`].
//! - Call [`Ring::publish`] after each batch, also when `pop` found nothing: malformed chains wait there too.
//! - On any [`RingError`] stop using the ring and tell the driver (DEVICE_NEEDS_RESET).

#![forbid(unsafe_code)]

mod chain;
mod descriptor;
mod error;
mod hold;
mod memory;
mod ring;
mod walk;

pub use chain::{Chain, Segment, Slices};
pub use error::{ChainError, RingError};
pub use hold::Hold;
pub use memory::Nearby;
pub use ring::Ring;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
