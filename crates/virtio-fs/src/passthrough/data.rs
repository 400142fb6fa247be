//! Open files and their data.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuse_wire::{InitFlags, WriteFlags};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use super::caching::{Access, Opening};
use super::nodes::Slot;
use super::stat::Stat;
use super::{CachePolicy, Passthrough};
use crate::errno::{Errno, Result};
use crate::seek::seek_in_data;
use crate::{Completion, Context, DataIn, DataOut, FileKind, Handle, Job, NodeId, Opened, Source, Timestamp};

/// The most that one COPY_FILE_RANGE copies, in bytes: the guest comes back for the rest, and others get their turn.
const MAX_COPY: u64 = 16 << 20;

/// More than the step of any host's clock for files.
const CLOCK_STEP: Duration = Duration::from_millis(50);

/// Flags of `open(2)` that mean the same on the host. O_DIRECT is the guest's own affair, and the rest is dangerous,
/// meaningless or set by us. O_APPEND is said with each WRITE, not all writes through a file that is open to append go to
/// its end: those that do have a descriptor of their own.
const PASSED_ON: OFlags = OFlags::ACCMODE
    .union(OFlags::TRUNC)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC)
    .union(OFlags::NOATIME);

impl Passthrough {
    /// The host's flags for a guest's.
    pub(super) fn data_flags(&self, flags: u32) -> OFlags {
        let mut flags = OFlags::from_bits_retain(flags) & PASSED_ON;
        if flags & OFlags::ACCMODE == OFlags::ACCMODE {
            // 3 is a leftover of old Linux: no access to data, ioctl only.
            flags -= OFlags::ACCMODE;
        }
        if self.config.collects_writes() {
            // The guest fills whole pages, so it reads what is only open for writing.
            if flags & OFlags::ACCMODE == OFlags::WRONLY {
                flags = (flags - OFlags::ACCMODE) | OFlags::RDWR;
            }
        }
        if self.config.read_only {
            flags |= OFlags::NOATIME;
        }
        flags
    }

    pub(super) fn do_open(&mut self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        self.refuse_if_full()?;
        let slot = self.nodes.slot(node)?;
        match self.kind(slot)? {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::EISDIR),
            FileKind::Symlink => return Err(Errno::ELOOP),
            // The guest's kernel serves these itself; opening the host's would reach the host's devices.
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                return Err(Errno::ENXIO);
            }
        }
        let (path_fd, stat) = self.fd_once(slot)?;
        let asked = flags;
        let (file, flags) = self.open_as_asked(&path_fd, asked)?;
        if flags.contains(OFlags::TRUNC) {
            if kill_suidgid {
                self.clear_suid(&file)?;
            }
            self.nodes.told_size(slot, 0);
        }
        let stat = match stat {
            // Between this look and the opening the host may have written. That was at the same time as the opening,
            // so it may be seen or not.
            Some(stat) if !flags.contains(OFlags::TRUNC) => stat,
            _ => Stat::of(&file)?,
        };
        self.add_file(slot, (file, flags), &stat, asked)
    }

    /// Opens a file with a guest's flags, and tells with which of the host's that was.
    fn open_as_asked(&mut self, fd: &OwnedFd, asked: u32) -> Result<(OwnedFd, OFlags)> {
        let (flags, collects) = (self.data_flags(asked), self.config.collects_writes());
        let appends = asked.cast_signed() & libc::O_APPEND != 0 && flags & OFlags::ACCMODE != OFlags::RDONLY;
        let instead = match self.open_data(fd, flags) {
            // A file that may be written but not read, which the guest's cache would have to read.
            Err(Errno::EACCES) if collects && flags.contains(OFlags::RDWR) => {
                (flags - OFlags::ACCMODE) | OFlags::WRONLY
            }
            // A file that can only be appended to (`chattr +a`) is not written through any other descriptor. Who
            // collects writes says where each goes, and has no use for this one.
            Err(Errno::EPERM) if appends && !collects => flags | OFlags::APPEND,
            opened => return Ok((opened?, flags)),
        };
        Ok((self.open_data(fd, instead)?, instead))
    }

    /// An open file for a node. `file` comes with the host's flags, `stat` is how it looks, `flags` are those of the guest.
    pub(super) fn add_file(
        &mut self,
        slot: Slot,
        (file, host_flags): (OwnedFd, OFlags),
        stat: &Stat,
        flags: u32,
    ) -> Result<Opened> {
        if flags.cast_signed() & (libc::O_ACCMODE | libc::O_TRUNC) != libc::O_RDONLY {
            self.changes(slot);
        }
        let node = self.nodes.get_mut(slot)?;
        let now = (stat.attr.size, stat.attr.mtime, stat.attr.ctime);
        let settled = is_settled(stat.attr.ctime, SystemTime::now());
        let opening = Opening {
            last: std::mem::replace(&mut node.seen, settled.then_some(now)),
            now,
            size_told: node.size_told,
            access: Access::of(flags),
            others: node.opened_by(),
            maps_uncached: self.negotiated.contains(InitFlags::DIRECT_IO_ALLOW_MMAP),
        };
        let flags = opening.flags(self.config.cache);
        let direct_writer = opening.writes_directly(flags);
        let handle = self.files.add(&mut self.nodes, slot, file, host_flags, direct_writer)?;
        Ok(Opened { handle, flags })
    }

    pub(super) fn do_opendir(&mut self, node: NodeId) -> Result<Opened> {
        self.refuse_if_full()?;
        let slot = self.nodes.slot(node)?;
        let path_fd = self.fd_at(slot)?;
        let noatime = if self.config.read_only {
            OFlags::NOATIME
        } else {
            OFlags::empty()
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | noatime;
        let folder = self.open_data(&path_fd, flags)?;
        let handle = self.files.add(&mut self.nodes, slot, folder, flags, false)?;
        Ok(Opened {
            handle,
            flags: self.config.folder_flags(),
        })
    }

    pub(super) fn close(&mut self, node: NodeId, handle: Handle) {
        let Ok(slot) = self.nodes.slot(node) else { return };
        if self.files.remove(&mut self.nodes, handle, slot).is_ok() {
            self.listings.forget(handle);
            if self.nodes.get(slot).is_ok_and(|node| node.open.is_none()) {
                self.files.locks.forget(slot);
            }
            self.nodes.closed(slot);
            self.collect();
        }
    }

    fn file(&self, node: NodeId, handle: Handle) -> Result<&Arc<OwnedFd>> {
        let slot = self.nodes.slot(node)?;
        Ok(&self.files.get(handle, slot)?.fd)
    }

    pub(super) fn do_read(&mut self, node: NodeId, handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()> {
        let slot = self.nodes.slot(node)?;
        let (major, minor) = self.nodes.get(slot)?.key.device;
        out.put_source(Source {
            file: self.files.get(handle, slot)?.fd.as_fd(),
            at: offset,
            device: Some(rustix::fs::makedev(major, minor)),
        })
    }

    pub(super) fn do_write(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        data: &mut DataIn<'_>,
        flags: WriteFlags,
    ) -> Result<u32> {
        let slot = self.nodes.slot(node)?;
        if data.appends() {
            self.prepare_to_append(slot, handle)?;
        }
        let file = self.files.get(handle, slot)?;
        let written = data.take_to_file(file.to_write(data.appends())?.as_fd(), offset)?;
        if flags.contains(WriteFlags::KILL_SUIDGID) && self.rights.keeps_suid {
            let file = Arc::clone(&file.fd);
            self.clear_suid(&file)?;
        }
        self.nodes.extended(slot, offset.saturating_add(written as u64));
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }

    /// The first append of an open file opens what they go through. Without it they are as good as the host's own file
    /// systems need them. Where it was short of something (EMFILE) or disturbed, the next append tries again.
    fn prepare_to_append(&mut self, slot: Slot, handle: Handle) -> Result<()> {
        let Some((file, flags)) = self.files.lacks_appender(&self.nodes, handle, slot) else {
            return Ok(());
        };
        match self.open_data(&file, flags) {
            Ok(appender) => self.files.set_appender(handle, slot, appender),
            Err(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ETXTBSY) => {
                self.files.refuse_appender(handle, slot)
            }
            Err(_) => Ok(()),
        }
    }

    pub(super) fn do_fsync(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        let file = Arc::clone(self.file(node, handle)?);
        Ok(Completion::Later(Job::new(move || {
            let synced = if data_only {
                rustix::fs::fdatasync(file)
            } else {
                rustix::fs::fsync(file)
            };
            Ok(synced?)
        })))
    }

    pub(super) fn do_fallocate(
        &mut self,
        by: &Context,
        node: NodeId,
        handle: Handle,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        self.clear_suid_for(by, node, handle)?;
        let slot = self.nodes.slot(node)?;
        let mode = FallocateFlags::from_bits_retain(mode);
        rustix::fs::fallocate(&self.files.get(handle, slot)?.fd, mode, offset, length)?;
        if !mode.contains(FallocateFlags::KEEP_SIZE) {
            self.nodes.extended(slot, offset.saturating_add(length));
        }
        Ok(())
    }

    /// The guest's kernel asks without writing back first what it holds, and where that is the host still has a hole.
    pub(super) fn do_lseek(&mut self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        if self.config.cache == CachePolicy::Always && !self.config.read_only {
            return Err(Errno::ENOSYS);
        }
        let slot = self.nodes.slot(node)?;
        if self.kind(slot)? != FileKind::Regular {
            return Err(Errno::EINVAL);
        }
        let file = &self.files.get(handle, slot)?.fd;
        if self.nodes.get(slot)?.mappable_writers > 0 {
            return seek_in_data(Stat::of(file)?.attr.size, offset, whence);
        }
        let whence = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::EINVAL),
        };
        Ok(rustix::fs::seek(file, whence)?)
    }

    pub(super) fn do_copy_file_range(
        &mut self,
        by: &Context,
        from: (NodeId, Handle, u64),
        to: (NodeId, Handle, u64),
        length: u64,
    ) -> Result<u32> {
        self.clear_suid_for(by, to.0, to.1)?;
        let (source, target) = (self.file(from.0, from.1)?, self.file(to.0, to.1)?);
        let length = usize::try_from(length.min(MAX_COPY)).unwrap_or(0);
        let (mut from_offset, mut to_offset) = (from.2, to.2);
        let copied = rustix::fs::copy_file_range(source, Some(&mut from_offset), target, Some(&mut to_offset), length)?;
        let slot = self.nodes.slot(to.0)?;
        self.nodes.extended(slot, to_offset);
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }

    /// For requests that do not say whether set-ID bits go. Linux leaves them to root, and to nobody else by default.
    fn clear_suid_for(&mut self, by: &Context, node: NodeId, handle: Handle) -> Result<()> {
        let file = Arc::clone(self.file(node, handle)?);
        if by.uid == 0 { Ok(()) } else { self.clear_suid(&file) }
    }
}

/// Whether a later change is sure to show another time. The host's clock for files moves in steps of some milliseconds,
/// so two changes at about the same time can look like one.
fn is_settled(changed: Timestamp, now: SystemTime) -> bool {
    let since_1970 = u64::try_from(changed.secs).map(|secs| Duration::new(secs, changed.nanos.min(999_999_999)));
    let changed = since_1970.ok().and_then(|since| UNIX_EPOCH.checked_add(since));
    let age = changed.and_then(|changed| now.duration_since(changed).ok());
    age.is_some_and(|age| age >= CLOCK_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_settled_once_the_clock_has_moved_on_for_sure() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(millis);
        let changed = Timestamp {
            secs: 100,
            nanos: 500_000_000,
        };
        for (now, settled) in [
            (100_500, false),
            (100_549, false),
            (100_550, true),
            (99_000, false),
            (1 << 40, true),
        ] {
            assert_eq!(is_settled(changed, at(now)), settled, "{now}");
        }
        for secs in [-1, i64::MIN, i64::MAX] {
            assert!(!is_settled(Timestamp { secs, nanos: u32::MAX }, at(1 << 40)));
        }
    }
}
