//! Where the guest's sockets lead on the host.

mod inet;
mod names;
mod published;
mod routes;
mod service;
mod sockets;
mod unix;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use vsock_proto::Errno;
use vsock_proto::wire::{Family, SocketName};

pub use routes::{Route, RouteError};
pub use service::{DatagramService, ServiceRead, StreamConnector, StreamService};
pub use sockets::HostSockets;

pub(crate) use names::{UNNAMED, from_any};
pub(crate) use routes::{RouteKind, RouteListener, check as check_routes};
pub(crate) use service::silence;

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

/// A socket's name in the file system, removed with this value unless it has become another file's.
#[derive(Debug)]
pub struct Place {
    dir: File,
    name: PathBuf,
    file: (u64, u64),
}

impl Place {
    /// Of the socket that was just bound there.
    ///
    /// # Errors
    /// When nothing is there.
    pub(crate) fn new(dir: OwnedFd, name: &OsStr) -> rustix::io::Result<Place> {
        let file = file_at(&dir, name.as_ref())?;
        Ok(Place {
            dir: File::from(dir),
            name: PathBuf::from(name),
            file,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if file_at(&self.dir, &self.name) == Ok(self.file) {
            let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
        }
    }
}

/// Device and inode of what has a name.
fn file_at(dir: impl AsFd, name: &Path) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
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
