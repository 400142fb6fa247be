//! Places below the root where listeners of the guest appear.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno as OsErrno;
use vsock_proto::Errno;

use super::errno;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// As the embedder laid it out.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// Of what the guest may have made since.
const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A published folder or socket.
#[derive(Debug)]
pub(super) struct Published {
    path: PathBuf,
    /// What there was of the path before the guest ran, deepest first. Its links are followed by these alone: the guest
    /// may make a link of anything, and would have sockets appear wherever that leads.
    found: Vec<(PathBuf, OwnedFd)>,
}

impl Published {
    pub(super) fn new(root: &OwnedFd, path: &[u8]) -> Published {
        let path = Path::new(OsStr::from_bytes(path));
        let open = |path| rustix::fs::openat2(root, path, FOLDER, Mode::empty(), INSIDE);
        let found = path
            .ancestors()
            .filter_map(|folder| Some((folder.to_owned(), open(folder).ok()?)));
        Published {
            path: path.to_owned(),
            found: found.collect(),
        }
    }

    /// Whether sockets in this folder are published; if not, the socket itself may be.
    pub(super) fn holds(&self, folder: &Path) -> bool {
        folder.starts_with(&self.path)
    }

    pub(super) fn is(&self, socket: &Path) -> bool {
        self.path == socket
    }

    pub(super) fn depth(&self) -> usize {
        self.path.components().count()
    }

    /// Opens a folder that is the published one, lies below it, or holds the published socket.
    pub(super) fn open(&self, folder: &Path) -> Result<OwnedFd, Errno> {
        let mut found = self.found.iter().filter(|(_, dir)| is_there(dir));
        let nearest = found.find_map(|(base, dir)| Some((folder.strip_prefix(base).ok()?, dir)));
        let (rest, dir) = nearest.ok_or(Errno::ENOENT)?;
        if rest.as_os_str().is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(dir, 0).map_err(errno);
        }
        match rustix::fs::openat2(dir, rest, FOLDER, Mode::empty(), BELOW) {
            Err(OsErrno::LOOP) => Err(Errno::EPERM),
            opened => opened.map_err(errno),
        }
    }
}

/// Whether a folder has not been removed since it was opened.
fn is_there(dir: impl AsFd) -> bool {
    rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_nlink > 0)
}
