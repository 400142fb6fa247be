//! A virtio-console device (virtio 1.3, 5.3): terminals, pipes and control channels between a guest and its host.
//!
//! A [`Port`] is a terminal (`hvc0` in the guest) or a named pipe (`/dev/vport0p1`), with a descriptor or code of the
//! embedder at its host's end. Data goes straight from one to the other: what the guest has no buffers for stays in the
//! host's pipe, what the host does not take stays in the guest's ring, and ends of streams travel both ways.
//!
//! Three layers, each to be used without the one after it:
//! - `control` and `wire` (private) are the control protocol without queues;
//! - [`Handler`] is the device between rings, memory and [`Ports`], driven by three calls;
//! - [`Console`] (feature `transport`) is a `VirtioDevice` of this workspace's transport.
//!
//! # Contract
//! - No call waits. Descriptors are read and written without blocking, and O_NONBLOCK is never set on those that are
//!   passed in: others may share them. Where neither `/proc` nor the kind of descriptor allows that, `poll` comes first
//!   and another process that takes what we were promised can make us wait.
//! - A process that writes to pipes must ignore SIGPIPE, as Rust programs do.
//! - Before the machine goes away, with its vCPUs stopped, call [`Handler::drain`]: what the guest wrote last may still be
//!   in its rings.

#![forbid(unsafe_code)]

mod backend;
mod budget;
mod control;
#[cfg(feature = "transport")]
mod device;
mod error;
mod handler;
mod input;
mod output;
mod port;
mod ports;
mod stats;
mod watch;
mod wire;

pub use backend::HostFd;
#[cfg(feature = "transport")]
pub use device::{Console, ConsoleConfig, ConsoleWorker};
pub use error::{ConfigError, MAX_PORTS};
pub use handler::{Handler, Signals};
pub use port::{ConsoleControl, MAX_NAME_LEN, Output, Port, PortKind, Size, TerminalSize};
pub use ports::Ports;
pub use stats::Stats;
pub use watch::{Direction, Watch};
pub use wire::{DEVICE_ID, F_MULTIPORT, F_SIZE};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
