//! The driver's side of virtio, for tests and fuzzing.
//!
//! [`Guest`] is memory with a bump allocator for buffers. [`SplitRing`] is a split virtqueue laid out by hand from the
//! standard (virtio 1.3, 2.7): well-formed chains of any shape through [`SplitRing::add`], and any bytes at all through
//! the `set_*` methods. [`MmioDriver`] speaks the virtio-mmio register protocol (4.2) to whatever implements
//! [`Registers`]. [`EagerDriver`] is a driver that never stops asking, and [`log_lines`] counts what a device says of one.
//!
//! Nothing here knows a device crate or shares code with one, so that a mistake cannot be on both sides. Being test
//! support, it panics where a test would.

#![forbid(unsafe_code)]

mod eager;
mod fuse_bridge;
mod guest;
mod log;
mod mmio;
mod ring;
mod vsock_peer;

pub use eager::EagerDriver;
pub use fuse_bridge::{FuseConnection, FuseMount};
pub use guest::{Buffer, Guest};
pub use log::log_lines;
pub use mmio::{Access, MmioDriver, Registers, register, status};
pub use ring::{Descriptor, SplitRing, Used, descriptor_flags};
pub use vsock_peer::{VsockPacket, VsockPeer};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
