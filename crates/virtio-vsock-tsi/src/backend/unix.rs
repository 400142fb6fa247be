//! AF_UNIX sockets beneath one folder (TSI specification, 7.6).
//!
//! Paths come from the guest and are resolved with that folder as their root, as the guest itself sees it: neither
//! `..` nor a link leads out. What was found is used through its descriptor, so nobody can swap it in between.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno as OsErrno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vsock_proto::Errno;
use vsock_proto::wire::{SocketName, UnixName};

use super::published::Published;
use super::{Connection, HostStream, Listener, Peer, Place, errno};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The folder that holds all AF_UNIX sockets a guest can name: what it sees as `/`.
#[derive(Debug)]
pub(crate) struct UnixRoot {
    dir: OwnedFd,
    published: Vec<Published>,
}

impl UnixRoot {
    pub(crate) fn new(dir: OwnedFd, published: &[Vec<u8>]) -> UnixRoot {
        let published = published.iter().map(|path| Published::new(&dir, path)).collect();
        UnixRoot { dir, published }
    }

    pub(super) fn connect(&self, name: &UnixName) -> Result<Connection, Errno> {
        let fd = socket(SocketType::STREAM)?;
        let (inode, addr) = self.find(name)?;
        connect_socket(&fd, &addr)?;
        drop(inode);
        let peer = Some(SocketName::Unix(name.clone()));
        Ok(Connection {
            stream: HostStream::Socket(fd),
            established: true,
            peer,
        })
    }

    pub(super) fn peer(&self, name: &UnixName) -> Result<Peer, Errno> {
        let (inode, addr) = self.find(name)?;
        Ok(Peer {
            addr: addr.into(),
            _held: Some(inode),
        })
    }

    /// Makes a listening socket at a path. The guest's own bind has left a socket there, which is in the way.
    pub(super) fn listen(&self, name: &UnixName, backlog: u16) -> Result<Listener, Errno> {
        let UnixName::Path(path) = name else {
            return Err(Errno::EPERM);
        };
        let path = Path::new(OsStr::from_bytes(path));
        let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EINVAL);
        };
        let dir = self.open_published(parent, path)?;
        listen_in(dir, last, name.clone(), backlog, |fd, dir| bind_in(fd, dir, last))
    }

    /// The folder of a published socket.
    fn open_published(&self, folder: &Path, socket: &Path) -> Result<OwnedFd, Errno> {
        let holds = self.published.iter().filter(|published| published.holds(folder));
        let deepest = holds.max_by_key(|published| published.depth());
        deepest
            .or_else(|| self.published.iter().find(|published| published.is(socket)))
            .ok_or(Errno::EPERM)?
            .open(folder)
    }

    /// A socket beneath the folder, and a name for it that leads nowhere else.
    fn find(&self, name: &UnixName) -> Result<(OwnedFd, SocketAddrUnix), Errno> {
        let UnixName::Path(path) = name else {
            return Err(Errno::ECONNREFUSED);
        };
        let inode = self
            .open(Path::new(OsStr::from_bytes(path)), OFlags::PATH)
            .map_err(errno)?;
        let addr = SocketAddrUnix::new(by_descriptor(&inode)).map_err(errno)?;
        Ok((inode, addr))
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, OsErrno> {
        rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty(), INSIDE)
    }
}

fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    net::socket_with(AddressFamily::UNIX, kind, FLAGS, None).map_err(errno)
}

/// Connects, or says that it cannot be done now: AF_UNIX never takes its time. A full accept queue is a refusal.
pub(super) fn connect_socket(fd: &OwnedFd, addr: &SocketAddrUnix) -> Result<(), Errno> {
    match net::connect(fd, addr) {
        Ok(()) => Ok(()),
        Err(OsErrno::AGAIN) => Err(Errno::ECONNREFUSED),
        Err(error) => Err(errno(error)),
    }
}

/// A socket that nobody listens on is removed; anything else stays and the bind fails on it. What has the name is held
/// while it is looked at, for the guest may give the name to a link that leads elsewhere.
fn remove_dead_socket(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inode = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(inode) => inode,
        Err(OsErrno::NOENT) => return Ok(()),
        Err(error) => return Err(errno(error)),
    };
    let stat = rustix::fs::fstat(&inode).map_err(errno)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Errno::EADDRINUSE);
    }
    let addr = SocketAddrUnix::new(by_descriptor(&inode)).map_err(errno)?;
    match net::connect(socket(SocketType::STREAM)?, &addr) {
        Err(OsErrno::CONNREFUSED) => rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(errno),
        _ => Err(Errno::EADDRINUSE),
    }
}

/// A datagram socket with a name of the kernel's choice, so that a peer can answer.
pub(super) fn datagram() -> Result<OwnedFd, Errno> {
    let fd = socket(SocketType::DGRAM)?;
    net::bind(&fd, &SocketAddrUnix::new_unnamed()).map_err(errno)?;
    Ok(fd)
}

/// A stream to a path of the host's own choice, for routes.
pub(super) fn connect_path(path: &Path) -> Result<OwnedFd, Errno> {
    let fd = socket(SocketType::STREAM)?;
    connect_socket(&fd, &SocketAddrUnix::new(path).map_err(errno)?)?;
    Ok(fd)
}

/// Listens at a path of the host's own choice. A socket that nobody serves any more is replaced.
pub(super) fn listen_path(path: &Path, backlog: u16) -> Result<Listener, Errno> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let last = path.file_name().ok_or(Errno::EINVAL)?;
    let dir = rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let dir = dir.map_err(errno)?;
    let addr = SocketAddrUnix::new(path).map_err(errno)?;
    let name = UnixName::Path(path.as_os_str().as_bytes().into());
    listen_in(dir, last, name, backlog, |fd, _| net::bind(fd, &addr).map_err(errno))
}

/// Listens at `last` in `dir`, where `bind` puts the socket. The guest, or who else asks, knows the place by `name`.
fn listen_in(
    dir: OwnedFd,
    last: &OsStr,
    name: UnixName,
    backlog: u16,
    bind: impl FnOnce(&OwnedFd, &OwnedFd) -> Result<(), Errno>,
) -> Result<Listener, Errno> {
    let fd = socket(SocketType::STREAM)?;
    remove_dead_socket(&dir, last)?;
    bind(&fd, &dir)?;
    let place = Some(Place::new(dir, last).map_err(errno)?);
    net::listen(&fd, backlog.into()).map_err(errno)?;
    Ok(Listener {
        socket: fd,
        at: SocketName::Unix(name),
        place,
    })
}

/// Binds at `last` in `dir`. The way to the folder takes some of the bytes that an address has, so a name that is too long for
/// the others is given to the socket afterwards.
fn bind_in(fd: &OwnedFd, dir: &OwnedFd, last: &OsStr) -> Result<(), Errno> {
    let folder = by_descriptor(dir);
    if let Ok(addr) = SocketAddrUnix::new(folder.join(last)) {
        return net::bind(fd, &addr).map_err(errno);
    }
    // Nobody else has this descriptor of this process.
    let short = format!(".tessera-{}-{}", std::process::id(), dir.as_raw_fd());
    remove_dead_socket(dir, OsStr::new(&short))?;
    net::bind(fd, &SocketAddrUnix::new(folder.join(&short)).map_err(errno)?).map_err(errno)?;
    // A link replaces nothing, on any file system.
    let named = rustix::fs::linkat(dir, &short, dir, last, AtFlags::empty());
    let _ = rustix::fs::unlinkat(dir, &short, AtFlags::empty());
    match named {
        Err(OsErrno::EXIST) => Err(Errno::EADDRINUSE),
        result => result.map_err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    use super::*;

    /// The name was looked at and then used: a guest that put a link there in between had the host connect to where
    /// the link led.
    #[test]
    fn name_that_becomes_a_link_while_it_is_looked_at_leads_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        let host = UnixListener::bind(outside.path().join("host")).unwrap();
        host.set_nonblocking(true).unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let [name, other] = ["name", "other"].map(|name| root.join(name));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = renameat_with(CWD, &name, CWD, &other, RenameFlags::EXCHANGE);
                }
            });
            for _ in 0..2000 {
                let _ = std::fs::remove_file(&name);
                let _ = std::fs::remove_file(&other);
                drop(UnixListener::bind(&name));
                let _ = symlink("../host", &other);
                let dir = OwnedFd::from(File::open(&root).unwrap());
                for _ in 0..5 {
                    let _ = remove_dead_socket(&dir, OsStr::new("name"));
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let reached = std::iter::from_fn(|| host.accept().ok()).count();
        assert_eq!(reached, 0);
    }
}
