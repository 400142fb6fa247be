//! vsock and TSI on the wire, and their connection state machines, sans-IO

#![forbid(unsafe_code)]

mod credit;
mod errno;
mod ids;
pub mod policy;
mod stats;
pub mod wire;

pub use errno::Errno;
pub use ids::{Cid, Key, ProxyId, ReservedCid};
pub use stats::{Counter, Stats};
