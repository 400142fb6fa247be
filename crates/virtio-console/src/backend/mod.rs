//! The host's side of a port: descriptors that are never made to block, and never changed for others.

mod host_fd;
mod sink;

pub use host_fd::HostFd;
pub(crate) use sink::HostOutput;
