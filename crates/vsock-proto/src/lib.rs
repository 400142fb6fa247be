//! vsock and TSI on the wire, and their connection state machines, sans-IO

#![forbid(unsafe_code)]

mod config;
mod credit;
mod errno;
mod ids;
mod mux;
pub mod policy;
mod stats;
mod stream;
pub mod wire;

pub use config::{Config, Limits, Publish, TsiFlags};
pub use errno::Errno;
pub use ids::{Cid, Key, ProxyId, ReservedCid};
pub use mux::{Action, DatagramRead, Muxer, Received, StreamRead, Ticket, Transmit};
pub use stats::{Counter, Stats};
