//! The back-end of a real host.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use vsock_proto::Errno;
use vsock_proto::wire::{Family, SocketName};

use super::service::StreamConnector;
use super::unix::UnixRoot;
use super::{Backend, Connection, HostStream, Listener, Peer, inet, unix};

/// Sockets of this host: the internet, one folder of AF_UNIX sockets, and plain vsock ports.
#[derive(Default)]
pub struct HostSockets {
    unix_root: Option<UnixRoot>,
    paths: BTreeMap<u32, PathBuf>,
    prefix: Option<PathBuf>,
    services: BTreeMap<u32, Box<dyn StreamConnector>>,
    ipv4_ports: BTreeSet<u16>,
}

impl HostSockets {
    /// The internet only.
    pub fn new() -> HostSockets {
        HostSockets::default()
    }

    /// With AF_UNIX sockets beneath an open folder: what the guest has as its root. Its own listeners appear at the places
    /// of `published`, as in [`Publish::unix`](vsock_proto::Publish::unix). Links that lead to these places are followed if
    /// they are there now; those that the guest makes later are not.
    #[must_use]
    pub fn with_unix_root(mut self, dir: OwnedFd, published: &[Vec<u8>]) -> HostSockets {
        self.unix_root = Some(UnixRoot::new(dir, published));
        self
    }

    /// The host's ports that listeners of IPv4 will have: one of IPv6 at the same port leaves IPv4 to them.
    #[must_use]
    pub fn with_ipv4_ports(mut self, ports: impl IntoIterator<Item = u16>) -> HostSockets {
        self.ipv4_ports.extend(ports);
        self
    }

    /// A plain vsock port leads to an AF_UNIX socket.
    #[must_use]
    pub fn with_path(mut self, port: u32, path: PathBuf) -> HostSockets {
        self.paths.insert(port, path);
        self
    }

    /// Plain vsock ports without another route lead to the AF_UNIX sockets `<prefix>_<port>`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: PathBuf) -> HostSockets {
        self.prefix = Some(prefix);
        self
    }

    /// A plain vsock port leads to something in this process.
    #[must_use]
    pub fn with_service(mut self, port: u32, service: Box<dyn StreamConnector>) -> HostSockets {
        self.services.insert(port, service);
        self
    }

    fn path(&self, port: u32) -> Option<PathBuf> {
        let of_prefix = || {
            let mut path = self.prefix.as_ref()?.clone().into_os_string();
            path.push(format!("_{port}"));
            Some(path.into())
        };
        self.paths.get(&port).cloned().or_else(of_prefix)
    }

    fn root(&self) -> Result<&UnixRoot, Errno> {
        self.unix_root.as_ref().ok_or(Errno::EACCES)
    }
}

impl Backend for HostSockets {
    fn connect(&mut self, to: &SocketName) -> Result<Connection, Errno> {
        match to {
            SocketName::Inet(addr) => inet::connect(*addr),
            SocketName::Unix(name) => self.root()?.connect(name),
        }
    }

    fn connect_route(&mut self, port: u32) -> Result<Connection, Errno> {
        let stream = match self.services.get_mut(&port) {
            Some(service) => HostStream::Service(service.connect().ok_or(Errno::ECONNREFUSED)?),
            None => HostStream::Socket(unix::connect_path(&self.path(port).ok_or(Errno::ECONNREFUSED)?)?),
        };
        Ok(Connection {
            stream,
            established: true,
            peer: None,
        })
    }

    fn listen(&mut self, at: &SocketName, backlog: u16) -> Result<Listener, Errno> {
        match at {
            SocketName::Inet(addr) => inet::listen(*addr, self.ipv4_ports.contains(&addr.port()), backlog),
            SocketName::Unix(name) => self.root()?.listen(name, backlog),
        }
    }

    fn datagram(&mut self, family: Family) -> Result<OwnedFd, Errno> {
        match family {
            Family::Unix => unix::datagram(),
            Family::Inet | Family::Inet6 => inet::datagram(family),
        }
    }

    fn datagram_peer(&mut self, name: &SocketName) -> Result<Peer, Errno> {
        match name {
            SocketName::Unix(name) => self.root()?.peer(name),
            SocketName::Inet(addr) => Ok(Peer {
                addr: (*addr).into(),
                _held: None,
            }),
        }
    }
}
