//! GETATTR, SETATTR, STATFS, ACCESS.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};

use super::Passthrough;
use super::nodes::Slot;
use super::stat::Stat;
use crate::errno::{Errno, Result};
use crate::sys::DescriptorPath;
use crate::{Attr, Change, Context, FileKind, Handle, NodeId, StatFs, TimeChange};

impl Passthrough {
    pub(super) fn do_getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<Attr> {
        let slot = self.nodes.slot(node)?;
        let open = handle.and_then(|handle| self.files.get(handle, slot).ok());
        let stat = match open {
            Some(file) => Stat::of(&file.fd)?,
            None => self.stat_at(slot)?,
        };
        Ok(self.tell(slot, &stat))
    }

    /// Size first, as a new mode may take the right to write away; the owner before the mode, as a new owner clears
    /// set-ID bits; times last, as all the others change them.
    pub(super) fn do_setattr(&mut self, node: NodeId, handle: Option<Handle>, change: &Change) -> Result<Attr> {
        let slot = self.nodes.slot(node)?;
        let open = handle
            .and_then(|handle| self.files.get(handle, slot).ok())
            .map(|file| Arc::clone(&file.fd));
        let fd = match &open {
            Some(fd) => Arc::clone(fd),
            None => self.fd_at(slot)?,
        };
        self.changes(slot);
        if let Some(size) = change.size {
            self.truncate(slot, open.as_deref(), &fd, size)?;
            if change.kill_suidgid {
                self.clear_suid(&fd)?;
            }
        }
        // -1 is not an ID: to the host it means to leave the owner alone, and rustix does not take it.
        let (uid, gid) = (change.uid.filter(is_id), change.gid.filter(is_id));
        if uid.is_some() || gid.is_some() {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            rustix::fs::chownat(&fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = change.mode {
            self.chmod(&fd, mode)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            };
            // AT_EMPTY_PATH is EINVAL before Linux 5.8.
            let path = DescriptorPath::new(fd.as_fd());
            rustix::fs::utimensat(&self.descriptors, path.name(), &times, AtFlags::empty())?;
        }
        let stat = Stat::of(&fd)?;
        Ok(self.tell(slot, &stat))
    }

    fn truncate(&mut self, slot: Slot, open: Option<&OwnedFd>, fd: &OwnedFd, size: u64) -> Result<()> {
        match self.kind(slot)? {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        if let Some(open) = open {
            match rustix::fs::ftruncate(open, size).map_err(Errno::from) {
                // The guest named a file that is open for reading only.
                Err(Errno::EINVAL | Errno::EBADF) => {}
                done => return done,
            }
        }
        let file = self.open_data(fd, OFlags::WRONLY)?;
        Ok(rustix::fs::ftruncate(&file, size)?)
    }

    /// What the host does when a process without CAP_FSETID writes: set-user-ID goes, set-group-ID goes where the group
    /// may execute. With the capability it is up to us.
    pub(super) fn clear_suid(&mut self, fd: &OwnedFd) -> Result<()> {
        if !self.rights.keeps_suid {
            return Ok(());
        }
        let mode = Stat::of(fd)?.attr.mode;
        let mut cleared = mode & !libc::S_ISUID;
        if mode & libc::S_IXGRP != 0 {
            cleared &= !libc::S_ISGID;
        }
        if cleared == mode {
            Ok(())
        } else {
            self.chmod(fd, cleared)
        }
    }

    pub(super) fn do_statfs(&mut self, node: NodeId) -> Result<StatFs> {
        let stat = rustix::fs::fstatvfs(self.fd(node)?)?;
        Ok(StatFs {
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            block_size: u32::try_from(stat.f_bsize).unwrap_or(4096),
            fragment_size: u32::try_from(stat.f_frsize).unwrap_or(4096),
            name_max: u32::try_from(stat.f_namemax).unwrap_or(255),
        })
    }

    pub(super) fn do_access(&mut self, by: &Context, node: NodeId, mask: u32) -> Result<()> {
        let slot = self.nodes.slot(node)?;
        let attr = self.stat_at(slot)?.attr;
        if permits(&attr, by, mask) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }
}

fn is_id(id: &u32) -> bool {
    *id != u32::MAX
}

/// The classic rule over owner, group and others. Supplementary groups are not known here.
fn permits(attr: &Attr, by: &Context, mask: u32) -> bool {
    let wanted = mask & 0o7;
    if by.uid == 0 {
        return wanted & 0o1 == 0 || attr.mode & 0o111 != 0 || attr.kind() == FileKind::Directory;
    }
    let granted = if by.uid == attr.uid {
        attr.mode >> 6
    } else if by.gid == attr.gid {
        attr.mode >> 3
    } else {
        attr.mode
    };
    wanted & !granted == 0
}

fn timespec(change: Option<TimeChange>) -> Timespec {
    match change {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(TimeChange::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        // What is no number of nanoseconds could read as UTIME_NOW or UTIME_OMIT; the host refuses this one.
        Some(TimeChange::To(time)) => Timespec {
            tv_sec: time.secs,
            tv_nsec: if time.nanos < 1_000_000_000 {
                time.nanos.into()
            } else {
                -1
            },
        },
    }
}
