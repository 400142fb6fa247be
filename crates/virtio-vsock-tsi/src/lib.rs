//! A virtio-vsock device that speaks TSI: the guest's sockets become the host's.

mod backend;
mod config;
#[cfg(feature = "transport")]
mod device;
mod handler;
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
pub use vsock_proto;
pub use vsock_proto::{Cid, Limits, Stats, TsiFlags};
pub use watch::{Interest, Readiness, Watcher};

/// The device ID of a socket device (virtio 1.3, 5.10.1).
pub const DEVICE_ID: u32 = 19;

/// The largest size of each queue: RX, TX, event. It is what guests are tested with.
pub const QUEUE_SIZES: [u16; 3] = [256; 3];

const VIRTIO_VSOCK_F_DGRAM: u64 = 1 << 3;
const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
const VIRTIO_F_VERSION_1: u64 = 1 << 32;

/// The features to offer. Datagrams are not in the standard; without them a TSI kernel cannot send control messages.
pub const FEATURES: u64 = VIRTIO_VSOCK_F_DGRAM | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1;

/// Fills `data` from config space at `offset`: the guest's CID as le64; what lies beyond reads as 0.
pub fn read_config(guest_cid: Cid, offset: u64, data: &mut [u8]) {
    let space = u64::from(guest_cid.get()).to_le_bytes();
    for (ahead, byte) in (0u64..).zip(data) {
        let at = offset.checked_add(ahead).and_then(|at| usize::try_from(at).ok());
        *byte = at.and_then(|at| space.get(at)).copied().unwrap_or(0);
    }
}
