//! A virtio-vsock device that speaks TSI: the guest's sockets become the host's.
//!
//! [`Handler`] takes queues, guest memory and an event loop as arguments and fits any VMM; `Vsock` (feature
//! `transport`) is a thin adapter around it. What the bytes mean and what may follow what is decided by
//! [`vsock_proto`]; here are queues, memory and sockets. [`Backend`] is where those sockets come from, [`HostSockets`]
//! the real one.
//!
//! Section numbers after "TSI specification" are those of `PROTOCOL.md`, which lies in the folder of [`vsock_proto`].
//!
//! # Contract
//! - [`Handler::start`] when the driver is ready, and again after each [`Handler::reset`].
//! - [`Handler::socket_ready`] for each report of the event loop, [`Handler::deadline_passed`] when the time has come
//!   that [`Handler::next_deadline`] names, and after each batch of these, and each notification of the driver,
//!   [`Handler::serve`] once. It says whether to interrupt the driver.
//! - [`Handler::reset`] closes the sockets of all connections, which takes them out of an epoll; it tells the event loop
//!   nothing. [`Handler::finish`] comes before it when the machine ends and what the guest sent last is to arrive.
//! - One thread at a time. `now` is time since any fixed moment.
//! - An error of [`Handler::serve`] means that the driver broke a ring: call [`Handler::stop`], set DEVICE_NEEDS_RESET and
//!   call nothing more until the reset.
//!
#![doc = include_str!("conformance.md")]

mod backend;
mod config;
#[cfg(feature = "transport")]
mod device;
mod handler;
mod state;
mod sys;
mod watch;

pub use backend::{
    Backend, Connection, DatagramService, HostSockets, HostStream, Listener, Peer, Place, Route, RouteError,
    ServiceRead, StreamConnector, StreamService,
};
pub use config::{VsockConfig, VsockConfigError};
#[cfg(feature = "transport")]
pub use device::{Vsock, VsockWorker};
pub use handler::{Handler, Queues, Served};
pub use state::VsockState;
pub use vsock_proto;
pub use vsock_proto::{Cid, Limits, Stats, TsiFlags};
pub use watch::{Interest, NoLoop, Readiness, Watcher};

/// The device ID of a socket device (virtio 1.3, 5.10.1).
pub const DEVICE_ID: u32 = 19;

/// The largest size of each queue: RX, TX, event. It is what guests are tested with.
pub const QUEUE_SIZES: [u16; 3] = [256; 3];

const VIRTIO_VSOCK_F_DGRAM: u64 = 1 << 3;
const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
const VIRTIO_F_VERSION_1: u64 = 1 << 32;

/// The features to offer. Bit 3 is that of the Linux patch series for datagrams, the ratified specification has none; without
/// them a TSI kernel cannot send control messages.
pub const FEATURES: u64 = VIRTIO_VSOCK_F_DGRAM | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1;

/// Fills `data` from config space at `offset`: the guest's CID as le64; what lies beyond reads as 0.
pub fn read_config(guest_cid: Cid, offset: u64, data: &mut [u8]) {
    let space = u64::from(guest_cid.get()).to_le_bytes();
    for (ahead, byte) in (0u64..).zip(data) {
        let at = offset.checked_add(ahead).and_then(|at| usize::try_from(at).ok());
        *byte = at.and_then(|at| space.get(at)).copied().unwrap_or(0);
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
