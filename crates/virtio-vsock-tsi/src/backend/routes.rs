//! Plain vsock ports and what they lead to (TSI specification, 8).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vsock_proto::Errno;
use vsock_proto::wire::port;

use super::service::{DatagramService, StreamConnector};
use super::{Listener, unix};

/// The longest path of an AF_UNIX socket.
const MAX_PATH: usize = 107;

/// The accept queue of a route's socket.
const BACKLOG: u16 = 128;

/// One plain vsock port, or the scheme that serves all of them.
pub enum Route {
    /// The guest connects to the port and reaches an AF_UNIX socket of the host.
    Connect {
        /// The port.
        port: u32,
        /// The socket.
        path: PathBuf,
    },
    /// A client on the host connects to an AF_UNIX socket and reaches the port in the guest.
    Listen {
        /// The port.
        port: u32,
        /// Where the socket is made.
        path: PathBuf,
    },
    /// The scheme of Firecracker. A client on the host connects to an AF_UNIX socket, writes `CONNECT <port>\n`, reads
    /// `OK <number>\n`, and reaches that port in the guest. The guest connects to a port that has no route of its own
    /// and reaches the AF_UNIX socket with `_<port>` behind the path.
    Multiplex {
        /// Where the socket is made.
        path: PathBuf,
    },
    /// The guest connects to the port and reaches something in this process.
    Service {
        /// The port.
        port: u32,
        /// What serves it.
        service: Box<dyn StreamConnector>,
    },
    /// The guest sends datagrams to the port, and something in this process gets them.
    DatagramService {
        /// The port.
        port: u32,
        /// What serves it.
        service: Box<dyn DatagramService>,
    },
}

/// Why a set of routes cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The port has another meaning.
    #[error("vsock port {0} is reserved")]
    Reserved(u32),
    /// Two routes for one port.
    #[error("vsock port {0} has two routes")]
    Duplicate(u32),
    /// No path, or one that no AF_UNIX socket can have.
    #[error("{0:?} cannot be the path of a socket: it has 1 to 107 bytes")]
    Path(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path:?}: error {}", errno.get())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

/// What a listening socket of a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteKind {
    Port(u32),
    Multiplex,
}

/// A listening socket of a route.
pub(crate) struct RouteListener {
    pub(crate) kind: RouteKind,
    pub(crate) listener: Listener,
}

impl Route {
    fn stream_port(&self) -> Option<u32> {
        match self {
            Route::Connect { port, .. } | Route::Listen { port, .. } | Route::Service { port, .. } => Some(*port),
            Route::Multiplex { .. } | Route::DatagramService { .. } => None,
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Route::Connect { path, .. } | Route::Listen { path, .. } | Route::Multiplex { path } => Some(path),
            Route::Service { .. } | Route::DatagramService { .. } => None,
        }
    }

    /// The socket that the host's clients connect to, for a route that has one.
    pub(crate) fn listen(&self) -> Result<Option<RouteListener>, RouteError> {
        let (kind, path) = match self {
            Route::Listen { port, path } => (RouteKind::Port(*port), path),
            Route::Multiplex { path } => (RouteKind::Multiplex, path),
            _ => return Ok(None),
        };
        let failed = |errno| RouteError::Listen {
            path: path.clone(),
            errno,
        };
        let listener = unix::listen_path(path, BACKLOG).map_err(failed)?;
        Ok(Some(RouteListener { kind, listener }))
    }
}

/// Checks routes against each other and against what the ports mean otherwise.
pub(crate) fn check(routes: &[Route], tsi: bool) -> Result<(), RouteError> {
    let (mut streams, mut datagrams) = (BTreeSet::new(), BTreeSet::new());
    for route in routes {
        if let Some(path) = route
            .path()
            .filter(|path| !(1..=MAX_PATH).contains(&path.as_os_str().len()))
        {
            return Err(RouteError::Path(path.to_owned()));
        }
        if let Some(port) = route.stream_port() {
            if matches!(port, 0 | port::RENDEZVOUS | port::ANY) {
                return Err(RouteError::Reserved(port));
            }
            if !streams.insert(port) {
                return Err(RouteError::Duplicate(port));
            }
        }
        if let Route::DatagramService { port, .. } = route {
            if matches!(*port, 0 | port::TIME_SYNC | port::ANY) || (tsi && port::is_control(*port)) {
                return Err(RouteError::Reserved(*port));
            }
            if !datagrams.insert(*port) {
                return Err(RouteError::Duplicate(*port));
            }
        }
    }
    Ok(())
}
