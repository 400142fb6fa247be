//! Socket names, the host's and the guest's.

use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};
use vsock_proto::wire::{SocketName, UnixName};

/// What an AF_UNIX socket without a name is called, for which the host says nothing at all.
pub(crate) const UNNAMED: SocketName = SocketName::Unix(UnixName::Unnamed);

/// The guest's form of a name. Paths of the host mean nothing in the guest, and are not for it to see.
pub(crate) fn from_any(addr: SocketAddrAny) -> Option<SocketName> {
    match addr.address_family() {
        AddressFamily::UNIX => {
            let unix = SocketAddrUnix::try_from(addr).ok()?;
            let name = unix.abstract_name().filter(|name| !name.is_empty());
            Some(name.map_or(UNNAMED, |name| SocketName::Unix(UnixName::Abstract(name.into()))))
        }
        _ => SocketAddr::try_from(addr).ok().map(SocketName::Inet),
    }
}
