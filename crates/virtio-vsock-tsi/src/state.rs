//! What of the device survives a snapshot.

use vsock_proto::state::MuxerState;

/// A device's state, as plain values. Whoever restores it treats it as hostile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VsockState {
    /// Sockets of the guest, and answers that it waits for.
    pub muxer: MuxerState,
    /// The driver was told of a TRANSPORT_RESET and is not done with it before so many of its event buffers are available.
    pub reset_done_at: Option<u16>,
}
