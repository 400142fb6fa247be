//! Making files, folders and the rest, with the right owner and mode.
//!
//! The guest's process has a user and a group of its own, and the guest's kernel has applied its umask. Ours is not
//! touched: it belongs to the whole process. So a file is made, then given its owner, then its mode; while it still
//! belongs to this process nobody else can open it.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fuse_wire::Name;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::Passthrough;
use super::nodes::Slot;
use super::resolve::PATH_ONLY;
use super::stat::Stat;
use crate::errno::{Errno, Result};
use crate::sys::DescriptorPath;
use crate::{Context, Entry, FileKind, NodeId, Opened};

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Whom a new inode is to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// What is made besides regular files.
enum Special<'a> {
    Folder,
    Link(&'a CStr),
    Node(FileType, (u32, u32)),
}

impl Special<'_> {
    fn kind(&self) -> FileKind {
        match self {
            Self::Folder => FileKind::Directory,
            Self::Link(_) => FileKind::Symlink,
            Self::Node(kind, _) => FileKind::from_mode(kind.as_raw_mode()).unwrap_or(FileKind::Regular),
        }
    }
}

impl Passthrough {
    /// Makes a file and opens it.
    pub(super) fn do_create(
        &mut self,
        by: &Context,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: u32,
    ) -> Result<(Entry, Opened)> {
        self.refuse_if_full()?;
        let (folder_slot, folder) = self.folder_to_change(parent)?;
        let (fd, stat) = self.make_file(by, &folder, name, mode, flags)?;
        self.enter(&stat, Some((folder_slot, name.to_bytes())), fd, flags)
    }

    pub(super) fn do_tmpfile(
        &mut self,
        by: &Context,
        parent: NodeId,
        mode: u32,
        flags: u32,
    ) -> Result<(Entry, Opened)> {
        self.refuse_if_full()?;
        self.refuse_if_nodes_full()?;
        let (_, folder) = self.folder_to_change(parent)?;
        let owner = self.owner(by, &folder)?;
        let host_flags = self.data_flags(flags) | OFlags::TMPFILE | OFlags::CLOEXEC;
        let first = first_mode(owner, mode);
        let fd = self.opening(|this| this.open_beneath(&folder, c".", host_flags, first))?;
        let stat = self.settle(&fd, owner, mode)?;
        self.enter(&stat, None, fd, flags)
    }

    /// A node and an open file for what was just made with the guest's `flags`.
    fn enter(&mut self, stat: &Stat, place: Option<(Slot, &[u8])>, fd: OwnedFd, flags: u32) -> Result<(Entry, Opened)> {
        let entry = self.entry(stat, place)?;
        let file = (fd, self.data_flags(flags));
        let opened = self
            .nodes
            .slot(entry.node)
            .and_then(|slot| self.add_file(slot, file, stat, flags));
        if opened.is_err() {
            self.forget_node(entry.node, 1);
        }
        Ok((entry, opened?))
    }

    fn make_file(
        &mut self,
        by: &Context,
        folder: &Arc<OwnedFd>,
        name: Name<'_>,
        mode: u32,
        flags: u32,
    ) -> Result<(OwnedFd, Stat)> {
        self.refuse_if_nodes_full()?;
        let owner = self.owner(by, folder)?;
        let flags = (self.data_flags(flags) - OFlags::TRUNC)
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let first = first_mode(owner, mode);
        let fd = self.opening(|this| this.open_beneath(folder, name.as_c_str(), flags, first))?;
        match self.settle(&fd, owner, mode) {
            Ok(stat) => Ok((fd, stat)),
            Err(errno) => {
                // What cannot get its owner must not stay with the wrong one.
                let _ = rustix::fs::unlinkat(folder, name.as_c_str(), AtFlags::empty());
                Err(errno)
            }
        }
    }

    pub(super) fn do_symlink(&mut self, by: &Context, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        self.make(by, parent, name, 0o777, &Special::Link(target))
    }

    pub(super) fn do_mkdir(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        self.make(by, parent, name, mode, &Special::Folder)
    }

    pub(super) fn do_mknod(
        &mut self,
        by: &Context,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        device: (u32, u32),
    ) -> Result<Entry> {
        let kind = match FileKind::from_mode(mode).unwrap_or(FileKind::Regular) {
            FileKind::Regular => {
                let (folder_slot, folder) = self.folder_to_change(parent)?;
                let (_, stat) = self.make_file(by, &folder, name, mode & 0o7777, libc::O_WRONLY.cast_unsigned())?;
                return self.entry(&stat, Some((folder_slot, name.to_bytes())));
            }
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::CharDevice if self.config.device_nodes => FileType::CharacterDevice,
            FileKind::BlockDevice if self.config.device_nodes => FileType::BlockDevice,
            FileKind::CharDevice | FileKind::BlockDevice => return Err(Errno::EPERM),
            FileKind::Directory | FileKind::Symlink => return Err(Errno::EINVAL),
        };
        self.make(by, parent, name, mode & 0o7777, &Special::Node(kind, device))
    }

    fn make(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32, what: &Special<'_>) -> Result<Entry> {
        self.refuse_if_nodes_full()?;
        let (folder_slot, folder) = self.folder_to_change(parent)?;
        let owner = self.owner(by, &folder)?;
        let first = first_mode(owner, mode);
        let (c_name, removal) = (name.as_c_str(), removal_flags(what));
        match *what {
            Special::Folder => rustix::fs::mkdirat(&folder, c_name, first)?,
            Special::Link(target) => rustix::fs::symlinkat(target, &folder, c_name)?,
            Special::Node(kind, (major, minor)) => {
                rustix::fs::mknodat(&folder, c_name, kind, first, rustix::fs::makedev(major, minor))?;
            }
        }
        let settled = self.settle_by_name(&folder, name, owner, mode, what);
        if settled.is_err() {
            let _ = rustix::fs::unlinkat(&folder, c_name, removal);
        }
        self.entry(&settled?, Some((folder_slot, name.to_bytes())))
    }

    /// Owner and mode of something that is not open. Another process of the host may have replaced it meanwhile: only
    /// what is ours, of the right kind and without other names is touched. Where all that this process makes belongs to
    /// somebody else (NFS that takes root for nobody, vfat with an owner of its own) what was made looks like what another
    /// one has put there. It cannot be given away, and keeps the mode that it was made with.
    fn settle_by_name(
        &mut self,
        folder: &Arc<OwnedFd>,
        name: Name<'_>,
        owner: Option<Owner>,
        mode: u32,
        what: &Special<'_>,
    ) -> Result<Stat> {
        let stat = Stat::at(folder, name.as_c_str())?;
        let is_link = matches!(what, Special::Link(_));
        let mode_fits = is_link || lost_bits(&stat, mode) == 0;
        if owner.is_none() && mode_fits {
            return Ok(stat);
        }
        let fd = self.opening(|this| this.open_beneath(folder, name.as_c_str(), PATH_ONLY, Mode::empty()))?;
        let is = Stat::of(&fd)?;
        let alone = is.kind() == FileKind::Directory || is.attr.nlink == 1;
        if is.kind() != what.kind() || !alone {
            return Err(Errno::ESTALE);
        }
        if is.attr.uid != self.rights.uid {
            return Ok(is);
        }
        if is_link {
            self.give(&fd, owner).and_then(|_| Stat::of(&fd))
        } else {
            self.settle(&fd, owner, mode)
        }
    }

    /// Gives what was made its owner and its mode, and tells how it looks then. What cannot be given away does not run with our
    /// rights.
    fn settle(&mut self, fd: &OwnedFd, owner: Option<Owner>, mode: u32) -> Result<Stat> {
        let mode = if self.give(fd, owner)? { mode } else { mode & !SET_ID };
        let mut stat = Stat::of(fd)?;
        let lost = lost_bits(&stat, mode);
        if lost != 0 {
            let mode = stat.attr.mode & 0o7777 | lost;
            self.chmod(fd, mode)?;
            stat.attr.mode = stat.attr.mode & libc::S_IFMT | mode;
        }
        Ok(stat)
    }

    /// False where the host's file system does not have this owner, or lets nobody give files away.
    fn give(&self, fd: &OwnedFd, owner: Option<Owner>) -> Result<bool> {
        let Some(Owner { uid, gid }) = owner else {
            return Ok(true);
        };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        match rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(Errno::from) {
            Ok(()) => Ok(true),
            Err(Errno::EPERM | Errno::EINVAL | Errno::EOVERFLOW | Errno::EOPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// A folder in which a name is to come or go, and its descriptor.
    pub(super) fn folder_to_change(&mut self, folder: NodeId) -> Result<(Slot, Arc<OwnedFd>)> {
        let slot = self.nodes.slot(folder)?;
        let fd = self.fd_at(slot)?;
        self.changes(slot);
        Ok((slot, fd))
    }

    pub(super) fn chmod(&self, fd: &OwnedFd, mode: u32) -> Result<()> {
        let path = DescriptorPath::new(fd.as_fd());
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::chmodat(&self.descriptors, path.name(), mode, AtFlags::empty())?;
        Ok(())
    }

    /// Whom something new in `folder` is to be given to; `None` when it has the right owner from the start, or when the
    /// process cannot give files away and so keeps them.
    fn owner(&self, by: &Context, folder: &OwnedFd) -> Result<Option<Owner>> {
        let ours = by.uid == self.rights.uid && by.gid == self.rights.gid;
        if ours || !self.rights.chown || by.uid == u32::MAX || by.gid == u32::MAX {
            return Ok(None);
        }
        let attr = Stat::of(folder)?.attr;
        // A folder with the set-group-ID bit hands its group down.
        let gid = if attr.mode & libc::S_ISGID != 0 {
            attr.gid
        } else {
            by.gid
        };
        Ok(Some(Owner { uid: by.uid, gid }))
    }
}

/// Bits that are asked for and were not given, because of our umask or because the owner changed.
fn lost_bits(stat: &Stat, mode: u32) -> u32 {
    mode & 0o7777 & !stat.attr.mode
}

/// The mode until the owner is right: nobody else gets in, and nothing runs with our rights.
fn first_mode(owner: Option<Owner>, mode: u32) -> Mode {
    let mode = if owner.is_some() { mode & 0o700 } else { mode & 0o7777 };
    Mode::from_raw_mode(mode)
}

fn removal_flags(what: &Special<'_>) -> AtFlags {
    match what {
        Special::Folder => AtFlags::REMOVEDIR,
        Special::Link(_) | Special::Node(..) => AtFlags::empty(),
    }
}
