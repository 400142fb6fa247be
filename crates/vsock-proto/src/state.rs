//! What of a [`Muxer`](crate::Muxer) survives a snapshot (TSI specification, 14), as plain values.
//!
//! Streams do not: the sockets behind them cannot be saved, and the device tells the guest that they are gone
//! (TRANSPORT_RESET). Set-up and counters are not part of it.

use crate::ids::Key;
use crate::wire::{Family, Reply, SocketName};

/// A muxer's state. Whoever restores it treats it as hostile: see [`Muxer::restore`](crate::Muxer::restore).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MuxerState {
    /// Stream sockets that the guest has made and that are neither connected nor listen.
    pub sockets: Vec<SocketState>,
    /// Listening stream sockets.
    pub listeners: Vec<ListenerState>,
    /// Datagram sockets.
    pub datagrams: Vec<DatagramState>,
    /// Answers that the guest waits for. What was not decided yet is answered with ECONNABORTED.
    pub replies: Vec<ReplyState>,
    /// Who accepted connections came from; the guest may have them in a queue and ask.
    pub peers: Vec<PeerState>,
    /// Where the choice of host ports goes on: an earlier one may be known to the guest still. 0 begins anew.
    pub next_host_port: u32,
}

/// A stream socket without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SocketState {
    /// Its vsock port in the guest.
    pub port: u32,
    /// Its family.
    pub family: Family,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ListenerState {
    /// Its vsock port in the guest.
    pub port: u32,
    /// Its family.
    pub family: Family,
    /// The vsock port that the guest's kernel listens on for it.
    pub vm_port: u32,
    /// What the program bound.
    pub name: SocketName,
    /// The length of its accept queue.
    pub backlog: u16,
    /// Connections in the guest's queue that no ACCEPT was told of.
    pub unannounced: u16,
    /// The port that waits for the answer to an ACCEPT.
    pub accept_reply_port: Option<u32>,
}

/// A datagram socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DatagramState {
    /// Its vsock port in the guest.
    pub port: u32,
    /// Its family.
    pub family: Family,
    /// What it is connected to.
    pub connected: Option<SocketName>,
    /// Where its next datagram goes.
    pub destination: Option<SocketName>,
}

/// An answer to a control request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReplyState {
    /// The port that waits for it.
    pub reply_port: u32,
    /// The port that the request was sent to.
    pub control_port: u32,
    /// The answer.
    pub reply: Reply,
    /// For an accept(2) that is told of a connection: the port of the listener's socket, which has the connection again if
    /// nobody takes the answer.
    pub accepted_at: Option<u32>,
}

/// An accepted connection's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerState {
    /// The guest's port of the connection.
    pub guest_port: u32,
    /// The host's port of it.
    pub host_port: u32,
    /// Who it came from.
    pub name: SocketName,
}

impl PeerState {
    pub(crate) fn new(key: Key, name: SocketName) -> PeerState {
        PeerState {
            guest_port: key.guest_port,
            host_port: key.host_port,
            name,
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key {
            guest_port: self.guest_port,
            host_port: self.host_port,
        }
    }
}

/// Why a state is not restored. The muxer is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Only a muxer without connections can take a state.
    #[error("the muxer has {0} connections already")]
    InUse(usize),
    /// A limit of the set-up.
    #[error("{count} {what}, of which {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many the state has.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A port that cannot be.
    #[error("{what} {port} cannot be")]
    Port {
        /// Which one.
        what: &'static str,
        /// Its number.
        port: u32,
    },
    /// Two things that exclude each other.
    #[error("{what} {port} is there twice")]
    Twice {
        /// Which one.
        what: &'static str,
        /// Its number.
        port: u32,
    },
    /// The set-up has no TSI for such sockets.
    #[error("the socket at port {port} is of a family that the device does not carry")]
    Family {
        /// The socket's.
        port: u32,
    },
    /// No guest can have given this name, or not to such a socket.
    #[error("the socket at port {port} has a name that is none of its family")]
    Name {
        /// The socket's.
        port: u32,
    },
    /// The set-up does not publish it.
    #[error("the listener at port {port} is not published")]
    NotPublished {
        /// The listener's.
        port: u32,
    },
    /// The policy denies it.
    #[error("the policy denies what the socket at port {port} leads to")]
    Denied {
        /// The socket's.
        port: u32,
    },
    /// No answer to such a request.
    #[error("the answer for port {reply_port} is none to a request to port {control_port}")]
    Reply {
        /// Who waits.
        reply_port: u32,
        /// What was asked.
        control_port: u32,
    },
}
