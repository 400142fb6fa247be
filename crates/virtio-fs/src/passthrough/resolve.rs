//! From a node to a descriptor, without leaving the share.
//!
//! Everything starts at a descriptor of a folder beneath the root and goes down by names that were checked, through
//! `openat2` with RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS and RESOLVE_NO_SYMLINKS. What comes out is compared with what
//! was seen before: another process of the host may have put something else there.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno as HostErrno;

use super::Passthrough;
use super::nodes::{ROOT, Slot};
use super::stat::Stat;
use crate::errno::{Errno, Result};
use crate::sys::{self, DescriptorPath};
use crate::{FileKind, NodeId};

pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

/// A descriptor that stands for an inode and gives no access to its data.
pub(super) const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The longest path of the host, in bytes without its NUL.
const PATH_MAX: usize = 4095;

/// How often a name is resolved again when the host renames folders at the same time.
const RACE_RETRIES: usize = 16;

impl Passthrough {
    /// A descriptor for a node, which stays cached.
    pub(super) fn fd(&mut self, id: NodeId) -> Result<Arc<OwnedFd>> {
        let slot = self.nodes.slot(id)?;
        self.fd_at(slot)
    }

    pub(super) fn fd_at(&mut self, slot: Slot) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.held_fd(slot)? {
            return Ok(fd);
        }
        let fd = Arc::new(self.reopen(slot)?.0);
        self.cache_fd(slot, &fd)?;
        Ok(fd)
    }

    /// A descriptor for a node that is needed only once, and its attributes if they were looked at on the way.
    pub(super) fn fd_once(&mut self, slot: Slot) -> Result<(Arc<OwnedFd>, Option<Stat>)> {
        if let Some(fd) = self.held_fd(slot)? {
            return Ok((fd, None));
        }
        let (fd, stat) = self.reopen(slot)?;
        Ok((Arc::new(fd), stat))
    }

    /// A descriptor that is there already.
    fn held_fd(&mut self, slot: Slot) -> Result<Option<Arc<OwnedFd>>> {
        if slot == ROOT {
            return Ok(Some(Arc::clone(&self.root)));
        }
        let node = self.nodes.get(slot)?;
        if let Some(fd) = &node.kept {
            return Ok(Some(Arc::clone(fd)));
        }
        let (cached, open) = (node.cached, node.open);
        if let Some(fd) = cached.and_then(|place| self.fds.get(place)) {
            return Ok(Some(fd));
        }
        Ok(self.files.any_of(open))
    }

    pub(super) fn cache_fd(&mut self, slot: Slot, fd: &Arc<OwnedFd>) -> Result<()> {
        while self.fds.is_full() {
            self.evict_fd();
        }
        let place = self.fds.insert(slot, Arc::clone(fd));
        self.nodes.get_mut(slot)?.cached = Some(place);
        Ok(())
    }

    /// Gives one cached descriptor up. What it stood for can be found again.
    fn evict_fd(&mut self) -> bool {
        let Some((slot, fd)) = self.fds.evict() else {
            return false;
        };
        let handles_work = self.handle_mount.is_some();
        let mount = self.root_key.mount;
        if let Ok(node) = self.nodes.get_mut(slot) {
            node.cached = None;
            if handles_work && node.file_handle.is_none() && node.key.mount == mount {
                node.file_handle = sys::file_handle(fd.as_fd()).ok();
            }
        }
        true
    }

    /// Opens something, and when the process or the host has no descriptor left, gives up cached ones first.
    pub(super) fn opening<T>(&mut self, mut open: impl FnMut(&Self) -> rustix::io::Result<T>) -> Result<T> {
        loop {
            match open(self) {
                Err(HostErrno::MFILE | HostErrno::NFILE) if self.evict_fd() => {}
                done => return Ok(done?),
            }
        }
    }

    /// Lets go of an inode that the host says is gone though there is a descriptor of it, as NFS does, before another one with its
    /// number is taken for it: only a time of birth would tell them apart.
    #[cold]
    pub(super) fn lose_if_stale(&mut self, looked_up: &Stat) {
        let Some(slot) = self.nodes.with_key(looked_up.key) else {
            return;
        };
        if let Ok(Some(fd)) = self.held_fd(slot)
            && matches!(Stat::of(&fd), Err(Errno::ESTALE))
        {
            self.nodes.lost(slot);
        }
    }

    fn reopen(&mut self, slot: Slot) -> Result<(OwnedFd, Option<Stat>)> {
        if self.nodes.get(slot)?.file_handle.is_some() {
            match self.reopen_by_handle(slot) {
                Ok(fd) => return Ok((fd, None)),
                // The host has seen the inode go. What has its name now is something else, whatever it looks like.
                Err(Errno::ESTALE) => {
                    self.nodes.lost(slot);
                    return Err(Errno::ESTALE);
                }
                Err(_) => {}
            }
        }
        let mut path = std::mem::take(&mut self.path);
        let opened = self.reopen_by_path(slot, &mut path);
        self.path = path;
        opened.map(|(fd, stat)| (fd, Some(stat)))
    }

    fn reopen_by_handle(&mut self, slot: Slot) -> Result<OwnedFd> {
        self.opening(|this| {
            let handle = this.nodes.get(slot).ok().and_then(|node| node.file_handle.as_ref());
            let (Some(handle), Some(mount)) = (handle, &this.handle_mount) else {
                return Err(HostErrno::OPNOTSUPP);
            };
            let opened = sys::open_by_handle(mount.as_fd(), handle, libc::O_PATH | libc::O_NOFOLLOW);
            opened.map_err(|error| HostErrno::from_io_error(&error).unwrap_or(HostErrno::IO))
        })
    }

    /// By the names that lead down from the nearest folder with a descriptor.
    fn reopen_by_path(&mut self, slot: Slot, path: &mut Vec<u8>) -> Result<(OwnedFd, Stat)> {
        let has_fd = |slot| {
            let node = self.nodes.get(slot);
            slot == ROOT || node.is_ok_and(|node| node.cached.is_some() || node.kept.is_some())
        };
        let (way, base) = self.nodes.way_up(slot, has_fd)?;
        let mut fd = self.held_fd(base)?.ok_or(Errno::ESTALE)?;
        path.clear();
        for at in way.iter().rev() {
            let (_, name) = self.nodes.place(*at).ok_or(Errno::ESTALE)?;
            if path.len() + 1 + name.len() > PATH_MAX {
                fd = Arc::new(self.go_down(&fd, path)?);
                path.clear();
            } else if !path.is_empty() {
                path.push(b'/');
            }
            let (_, name) = self.nodes.place(*at).ok_or(Errno::ESTALE)?;
            path.extend_from_slice(name);
        }
        let fd = self.go_down(&fd, path)?;
        let node = self.nodes.get(slot)?;
        let stat = Stat::of(&fd)?;
        if node.is(&stat) {
            Ok((fd, stat))
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// Opens a path that was put together from names that were seen. When it is gone the guest's kernel gets ESTALE,
    /// and looks the name up again.
    fn go_down(&mut self, folder: &OwnedFd, path: &mut Vec<u8>) -> Result<OwnedFd> {
        path.push(0);
        let path = CStr::from_bytes_until_nul(path).map_err(|_| Errno::ESTALE)?;
        let opened = self.opening(|this| this.open_beneath(folder, path, PATH_ONLY, Mode::empty()));
        opened.map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV => Errno::ESTALE,
            errno => errno,
        })
    }

    /// Attributes of a node, by whatever is at hand.
    pub(super) fn stat_at(&mut self, slot: Slot) -> Result<Stat> {
        if let Some(fd) = self.held_fd(slot)? {
            return Stat::of(&fd);
        }
        if let Some(stat) = self.stat_by_name(slot) {
            return Ok(stat);
        }
        Stat::of(self.fd_at(slot)?)
    }

    /// One system call where the folder's descriptor is cached.
    fn stat_by_name(&mut self, slot: Slot) -> Option<Stat> {
        let (parent, _) = self.nodes.place(slot)?;
        let folder = self.fd_at(parent).ok()?;
        let (_, name) = self.nodes.place(slot)?;
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        path.extend_from_slice(name);
        path.push(0);
        let stat = CStr::from_bytes_until_nul(&path)
            .ok()
            .and_then(|name| Stat::at(folder, name).ok());
        self.path = path;
        let node = self.nodes.get(slot).ok()?;
        stat.filter(|stat| node.is(stat))
    }

    /// Opens the data of what a descriptor stands for. `fd` may be an O_PATH descriptor; it stands for a regular file
    /// or a folder, as opening anything else can have effects of its own.
    pub(super) fn open_data(&mut self, fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
        let path = DescriptorPath::new(fd.as_fd());
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let opened = self.opening(|this| rustix::fs::openat(&this.descriptors, path.name(), flags, Mode::empty()));
        match opened {
            Err(Errno::EPERM) if flags.contains(OFlags::NOATIME) => {
                let flags = flags - OFlags::NOATIME;
                self.opening(|this| rustix::fs::openat(&this.descriptors, path.name(), flags, Mode::empty()))
            }
            opened => opened,
        }
    }

    /// Opens a path beneath a folder.
    pub(super) fn open_beneath(
        &self,
        folder: &OwnedFd,
        path: &CStr,
        flags: OFlags,
        mode: Mode,
    ) -> rustix::io::Result<OwnedFd> {
        if !self.has_openat2 {
            return open_step_by_step(folder, path, flags, mode);
        }
        for _ in 0..RACE_RETRIES {
            match rustix::fs::openat2(folder, path, flags, mode, BENEATH) {
                Err(HostErrno::AGAIN | HostErrno::INTR) => {}
                // Perhaps a filter has come since; if not, this gives the same.
                Err(HostErrno::NOSYS | HostErrno::PERM) => return open_step_by_step(folder, path, flags, mode),
                opened => return opened,
            }
        }
        Err(HostErrno::AGAIN)
    }

    /// The kind of a node, as it was when it was looked up. An inode does not change its kind.
    pub(super) fn kind(&self, slot: Slot) -> Result<FileKind> {
        Ok(self.nodes.get(slot)?.kind)
    }
}

/// Whether there is `openat2`. Before Linux 5.6 there is not, and a filter that does not know it answers EPERM, which nothing
/// else does when a folder of our own is looked up in itself.
pub(super) fn has_openat2(root: &OwnedFd) -> bool {
    let opened = rustix::fs::openat2(root, c".", PATH_ONLY, Mode::empty(), BENEATH);
    !matches!(opened, Err(HostErrno::NOSYS | HostErrno::PERM))
}

/// Opens a path beneath a folder without `openat2`: one name after the other, and none of them may be a symbolic link. There
/// is no `..` among names that were checked.
fn open_step_by_step(folder: &OwnedFd, path: &CStr, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let mut names = path.to_bytes().split(|byte| *byte == b'/');
    let last = names.next_back().unwrap_or_default();
    let mut at: Option<OwnedFd> = None;
    for name in names {
        let step = rustix::fs::openat(
            at.as_ref().unwrap_or(folder),
            name,
            PATH_ONLY | OFlags::DIRECTORY,
            Mode::empty(),
        );
        at = Some(step?);
    }
    rustix::fs::openat(at.as_ref().unwrap_or(folder), last, flags | OFlags::NOFOLLOW, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_without_openat2_is_followed_and_links_in_it_are_not() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::fs::write(temp.path().join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("file", temp.path().join("a/b/to-file")).unwrap();
        let folder = rustix::fs::open(temp.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let kind = |path: &CStr| {
            let opened = open_step_by_step(&folder, path, PATH_ONLY, Mode::empty());
            opened.map(|fd| Stat::of(&fd).unwrap().kind())
        };
        assert_eq!(kind(c"a/b/file"), Ok(FileKind::Regular));
        assert_eq!(kind(c"a"), Ok(FileKind::Directory));
        assert_eq!(kind(c"link"), Ok(FileKind::Symlink));
        assert_eq!(kind(c"link/b/file"), Err(HostErrno::NOTDIR));
        assert_eq!(kind(c"a/none/file"), Err(HostErrno::NOENT));
        let opened = open_step_by_step(&folder, c"a/b/to-file", OFlags::RDONLY, Mode::empty());
        assert_eq!(opened.map(drop), Err(HostErrno::LOOP));
    }
}
