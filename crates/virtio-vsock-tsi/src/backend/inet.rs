//! TCP and UDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno as OsErrno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use vsock_proto::Errno;
use vsock_proto::wire::{Family, SocketName};

use super::{Connection, HostStream, Listener, errno, from_any};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn family_of(addr: &SocketAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}

fn socket(family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Errno> {
    net::socket_with(family, kind, FLAGS, None).map_err(errno)
}

pub(super) fn connect(to: SocketAddr) -> Result<Connection, Errno> {
    let fd = socket(family_of(&to), SocketType::STREAM)?;
    let established = start(&fd, &to)?;
    Ok(Connection {
        stream: HostStream::Socket(fd),
        established,
        peer: None,
    })
}

/// Starts to connect. True when that is done already, as it is to a server on this machine: the kernel handles the
/// handshake's packets right after it has said that the connect is in progress, so the answer is there for who asks
/// once more. Otherwise the event loop would be asked to wait for it, and to be told that it has come.
fn start(fd: &OwnedFd, to: &SocketAddr) -> Result<bool, Errno> {
    match net::connect(fd, to) {
        Ok(()) => return Ok(true),
        Err(OsErrno::INPROGRESS) => {}
        Err(OsErrno::INTR) => return Ok(false),
        Err(error) => return Err(errno(error)),
    }
    match net::connect(fd, to) {
        Ok(()) | Err(OsErrno::ISCONN) => Ok(true),
        Err(OsErrno::ALREADY | OsErrno::INPROGRESS | OsErrno::INTR) => Ok(false),
        Err(error) => Err(errno(error)),
    }
}

/// SO_REUSEPORT stays off: two machines must not share a port by accident. At all addresses of IPv6 those of IPv4 are
/// listened at too, unless `v6_only`.
pub(super) fn listen(at: SocketAddr, v6_only: bool, backlog: u16) -> Result<Listener, Errno> {
    let fd = socket(family_of(&at), SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&fd, true).map_err(errno)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, v6_only).map_err(errno)?;
    }
    net::bind(&fd, &at).map_err(errno)?;
    net::listen(&fd, backlog.into()).map_err(errno)?;
    let bound = net::getsockname(&fd).ok().and_then(from_any);
    Ok(Listener {
        socket: fd,
        at: bound.unwrap_or(SocketName::Inet(at)),
        place: None,
    })
}

pub(super) fn datagram(family: Family) -> Result<OwnedFd, Errno> {
    let any: IpAddr = match family {
        Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let at = SocketAddr::new(any, 0);
    let fd = socket(family_of(&at), SocketType::DGRAM)?;
    net::bind(&fd, &at).map_err(errno)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn connection_to_this_machine_is_there_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        // A busy machine may answer later now and then; without the second look none is.
        assert!((0..50).any(|_| connect(to).unwrap().established));
    }

    #[test]
    fn closed_port_of_this_machine_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        match connect(to) {
            Err(refused) => assert_eq!(refused, Errno::ECONNREFUSED),
            // Not yet: the event loop will be told.
            Ok(connection) => assert!(!connection.established),
        }
    }
}
