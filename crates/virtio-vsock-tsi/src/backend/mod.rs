//! Where the guest's sockets lead on the host.

mod inet;
mod names;
mod routes;
mod service;
mod sockets;
mod unix;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use vsock_proto::Errno;
use vsock_proto::wire::{Family, SocketName};

pub use routes::{Route, RouteError};
pub use service::{DatagramService, ServiceRead, StreamConnector, StreamService};
pub use sockets::HostSockets;

pub(crate) use names::{UNNAMED, from_any, to_any};
pub(crate) use routes::{RouteKind, RouteListener, check as check_routes};

/// The host's side, as a [`Handler`](crate::Handler) uses it. Nothing here may block.
pub trait Backend: Send {
    /// Connects a stream.
    ///
    /// # Errors
    /// What the guest's program is to be told.
    fn connect(&mut self, to: &SocketName) -> Result<Connection, Errno>;

    /// Connects to what serves a plain vsock port.
    ///
    /// # Errors
    /// When nothing does; the guest is refused.
    fn connect_route(&mut self, port: u32) -> Result<Connection, Errno>;

    /// Listens for streams.
    ///
    /// # Errors
    /// What the guest's program is to be told.
    fn listen(&mut self, at: &SocketName, backlog: u16) -> Result<Listener, Errno>;

    /// Makes a datagram socket that any peer can answer.
    ///
    /// # Errors
    /// As the calls that it takes.
    fn datagram(&mut self, family: Family) -> Result<OwnedFd, Errno>;

    /// What to call a datagram peer; paths are resolved for each use, since they can change.
    ///
    /// # Errors
    /// When there is no such peer.
    fn datagram_peer(&mut self, name: &SocketName) -> Result<Peer, Errno>;
}

/// A stream of the host's.
pub struct Connection {
    /// What carries it.
    pub stream: HostStream,
    /// Whether the connection stands; if not, the socket becomes writable when it is decided.
    pub established: bool,
    /// What `getpeername(2)` in the guest says, where the host's own name for it would mean nothing there.
    pub peer: Option<SocketName>,
}

/// What carries a stream on the host.
pub enum HostStream {
    /// A non-blocking socket, and the only descriptor of it.
    Socket(OwnedFd),
    /// Something in this process.
    Service(Box<dyn StreamService>),
}

/// A listening socket of the host's.
pub struct Listener {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// Where it listens.
    pub at: SocketName,
    /// Its place in the file system, if it has one, gone when this is dropped.
    pub place: Option<Place>,
}

/// A datagram peer's address, and what keeps it valid for the call.
pub struct Peer {
    pub(crate) addr: rustix::net::SocketAddrAny,
    pub(crate) _held: Option<OwnedFd>,
}

/// A socket's name in the file system, removed with this value.
#[derive(Debug)]
pub struct Place {
    dir: File,
    name: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody else may have removed it: nothing to do then.
        let _ = rustix::fs::unlinkat(&self.dir, &self.name, rustix::fs::AtFlags::empty());
    }
}

impl HostStream {
    /// What an event loop can wait for.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            HostStream::Socket(fd) => Some(fd.as_fd()),
            HostStream::Service(service) => service.waker(),
        }
    }
}

/// As the guest is told of a failed call.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
