//! [`MemoryFs`] as a back-end.

use std::ffi::CStr;

use fuse_wire::{InitFlags, Name, OpenOutFlags, WriteFlags};

use super::MemoryFs;
use super::inode::{Body, Inode, XATTR_COST};
use crate::errno::{Errno, Result};
use crate::{
    Attr, Change, Context, DataIn, DataOut, DirEntry, DirSink, Entry, FileKind, FileSystem, Handle, NodeId, Opened,
    Options, StatFs, TimeChange,
};

/// Extended attributes of one inode take at most this many bytes.
const MAX_XATTRS: usize = 64 << 10;

impl MemoryFs {
    fn opened(&mut self, node: NodeId) -> Result<Opened> {
        self.inode_mut(node)?.uses += 1;
        // The node is all that there is to know of an open file.
        Ok(Opened {
            handle: Handle(node.0),
            flags: OpenOutFlags::KEEP_CACHE,
        })
    }

    fn exchange(&mut self, from: (NodeId, &[u8]), to: (NodeId, &[u8])) -> Result<()> {
        let (one, other) = (self.child(from.0, from.1)?, self.child(to.0, to.1)?);
        if self.is_within(to.0, one) || self.is_within(from.0, other) {
            return Err(Errno::EINVAL);
        }
        self.folder_mut(from.0)?.insert(from.1, other);
        self.folder_mut(to.0)?.insert(to.1, one);
        self.set_parent(one, from.0, to.0)?;
        self.set_parent(other, to.0, from.0)
    }

    /// Whether `moved` may take the name of `old`.
    fn may_replace(&self, moved: NodeId, old: NodeId) -> Result<()> {
        match (&self.inode(old)?.body, self.inode(moved)?.is_folder()) {
            (Body::Folder(folder), true) if !folder.is_empty() => Err(Errno::ENOTEMPTY),
            (Body::Folder(_), false) => Err(Errno::EISDIR),
            (Body::Folder(_), true) | (_, false) => Ok(()),
            (_, true) => Err(Errno::ENOTDIR),
        }
    }

    /// A folder's bit says whose group new files have.
    fn clear_suid(inode: &mut Inode) {
        if inode.is_folder() {
            return;
        }
        inode.mode &= !libc::S_ISUID;
        if inode.mode & libc::S_IXGRP != 0 {
            inode.mode &= !libc::S_ISGID;
        }
    }
}

impl FileSystem for MemoryFs {
    fn options(&self) -> Options {
        let flags = InitFlags::ATOMIC_O_TRUNC | InitFlags::HANDLE_KILLPRIV_V2;
        Options {
            flags,
            ..Options::default()
        }
    }

    fn unmounted(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.uses = 0;
        }
        let dead: Vec<NodeId> = self
            .inodes
            .iter()
            .filter(|(_, inode)| inode.nlink == 0)
            .map(|(node, _)| *node)
            .collect();
        for node in dead {
            self.collect(node);
        }
    }

    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        let node = self.child(parent, name.to_bytes())?;
        self.entry(node)
    }

    fn forget(&mut self, node: NodeId, count: u64) {
        self.release_use(node, count);
    }

    fn getattr(&mut self, node: NodeId, _handle: Option<Handle>) -> Result<Attr> {
        Ok(self.inode(node)?.attr(node))
    }

    fn setattr(&mut self, node: NodeId, _handle: Option<Handle>, change: &Change) -> Result<Attr> {
        if let Some(size) = change.size {
            self.resize(node, size)?;
        }
        let now = (self.clock)();
        let inode = self.inode_mut(node)?;
        if change.kill_suidgid || change.uid.is_some() || change.gid.is_some() {
            Self::clear_suid(inode);
        }
        inode.uid = change.uid.unwrap_or(inode.uid);
        inode.gid = change.gid.unwrap_or(inode.gid);
        inode.mode = change.mode.unwrap_or(inode.mode);
        let time = |change, is| match change {
            None => is,
            Some(TimeChange::Now) => now,
            Some(TimeChange::To(time)) => time,
        };
        inode.atime = time(change.atime, inode.atime);
        inode.mtime = time(change.mtime, inode.mtime);
        inode.ctime = now;
        Ok(inode.attr(node))
    }

    fn readlink(&mut self, node: NodeId, target: &mut Vec<u8>) -> Result<()> {
        let Body::Link(text) = &self.inode(node)?.body else {
            return Err(Errno::EINVAL);
        };
        target.extend_from_slice(text);
        Ok(())
    }

    fn symlink(&mut self, by: &Context, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        let node = self.make(by, parent, name, 0o777, Body::Link(target.to_bytes().into()))?;
        self.entry(node)
    }

    fn mknod(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32, device: (u32, u32)) -> Result<Entry> {
        let body = match FileKind::from_mode(mode).unwrap_or(FileKind::Regular) {
            FileKind::Regular => Body::File(Vec::new()),
            FileKind::Directory | FileKind::Symlink => return Err(Errno::EINVAL),
            kind => Body::Special(kind, device),
        };
        let node = self.make(by, parent, name, mode, body)?;
        self.entry(node)
    }

    fn mkdir(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        let node = self.make(by, parent, name, mode, Body::folder(parent))?;
        self.entry(node)
    }

    fn unlink(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        if self.inode(self.child(parent, name.to_bytes())?)?.is_folder() {
            return Err(Errno::EISDIR);
        }
        self.unname(parent, name.to_bytes())
    }

    fn rmdir(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        match &self.inode(self.child(parent, name.to_bytes())?)?.body {
            Body::Folder(folder) if folder.is_empty() => self.unname(parent, name.to_bytes()),
            Body::Folder(_) => Err(Errno::ENOTEMPTY),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn rename(
        &mut self,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: u32,
    ) -> Result<()> {
        let (from, to) = ((parent, name.to_bytes()), (new_parent, new_name.to_bytes()));
        let node = self.child(from.0, from.1)?;
        let target = match self.child(to.0, to.1) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        match flags {
            libc::RENAME_EXCHANGE => return self.exchange(from, to),
            libc::RENAME_NOREPLACE if target.is_some() => return Err(Errno::EEXIST),
            0 | libc::RENAME_NOREPLACE => {}
            _ => return Err(Errno::EINVAL),
        }
        if self.is_within(to.0, node) {
            return Err(Errno::EINVAL);
        }
        if target == Some(node) {
            return Ok(());
        }
        if self.inode(to.0)?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if let Some(old) = target {
            self.may_replace(node, old)?;
        }
        self.folder_mut(from.0)?.remove(from.1);
        self.folder_mut(to.0)?.insert(to.1, node);
        if let Some(old) = target {
            self.lost_name(to.0, old)?;
        }
        self.set_parent(node, from.0, to.0)?;
        let now = (self.clock)();
        self.inode_mut(node)?.ctime = now;
        Ok(())
    }

    fn link(&mut self, node: NodeId, new_parent: NodeId, new_name: Name<'_>) -> Result<Entry> {
        if self.inode(node)?.is_folder() {
            return Err(Errno::EPERM);
        }
        match self.child(new_parent, new_name.to_bytes()) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        if self.inode(new_parent)?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        self.check_names()?;
        self.name(new_parent, new_name.to_bytes(), node)?;
        let now = (self.clock)();
        let inode = self.inode_mut(node)?;
        inode.nlink = inode.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
        inode.ctime = now;
        self.entry(node)
    }

    fn open(&mut self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        match &self.inode(node)?.body {
            Body::File(_) => {}
            Body::Folder(_) => return Err(Errno::EISDIR),
            _ => return Err(Errno::ENXIO),
        }
        if flags.cast_signed() & libc::O_TRUNC != 0 {
            self.resize(node, 0)?;
            if kill_suidgid {
                Self::clear_suid(self.inode_mut(node)?);
            }
        }
        self.opened(node)
    }

    fn create(
        &mut self,
        by: &Context,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        _flags: u32,
    ) -> Result<(Entry, Opened)> {
        let node = self.make(by, parent, name, mode, Body::File(Vec::new()))?;
        Ok((self.entry(node)?, self.opened(node)?))
    }

    fn tmpfile(&mut self, by: &Context, parent: NodeId, mode: u32, _flags: u32) -> Result<(Entry, Opened)> {
        self.folder(parent)?;
        if self.inodes.len() >= self.max_inodes {
            return Err(Errno::ENOSPC);
        }
        let gid = self.handed_down(parent)?.unwrap_or(by.gid);
        let node = self.insert(&Context { gid, ..*by }, mode, Body::File(Vec::new()));
        self.inode_mut(node)?.nlink = 0;
        Ok((self.entry(node)?, self.opened(node)?))
    }

    fn read(&mut self, node: NodeId, _handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()> {
        let now = (self.clock)();
        let inode = self.inode_mut(node)?;
        inode.atime = now;
        let Body::File(bytes) = &inode.body else {
            return Err(Errno::EINVAL);
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        out.put(bytes.get(offset..).unwrap_or_default())
    }

    fn write(
        &mut self,
        node: NodeId,
        _handle: Handle,
        offset: u64,
        data: &mut DataIn<'_>,
        flags: WriteFlags,
    ) -> Result<u32> {
        let len = data.remaining();
        let end = offset.checked_add(len as u64).ok_or(Errno::EFBIG)?;
        let size = self.inode(node)?.body.len();
        self.resize(node, size.max(end))?;
        let inode = self.inode_mut(node)?;
        if flags.contains(WriteFlags::KILL_SUIDGID) {
            Self::clear_suid(inode);
        }
        let Body::File(bytes) = &mut inode.body else {
            return Err(Errno::EINVAL);
        };
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        data.take(bytes.get_mut(start..start + len).ok_or(Errno::EFBIG)?)?;
        u32::try_from(len).map_err(|_| Errno::EINVAL)
    }

    fn statfs(&mut self, _node: NodeId) -> Result<StatFs> {
        let blocks = |bytes: usize| bytes as u64 / 4096;
        let free = blocks(self.max_bytes.saturating_sub(self.bytes));
        Ok(StatFs {
            blocks: blocks(self.max_bytes),
            blocks_free: free,
            blocks_available: free,
            files: self.max_inodes as u64,
            files_free: self.max_inodes.saturating_sub(self.inodes.len().max(self.names)) as u64,
            block_size: 4096,
            fragment_size: 4096,
            name_max: 255,
        })
    }

    fn release(&mut self, node: NodeId, _handle: Handle, _flock_owner: Option<u64>) {
        self.release_use(node, 1);
    }

    fn opendir(&mut self, node: NodeId, _flags: u32) -> Result<Opened> {
        self.folder(node)?;
        self.opened(node)
    }

    /// The offset of an entry is its number in the folder: what was there all along is listed once, whatever comes and goes
    /// meanwhile.
    fn readdir(&mut self, node: NodeId, _handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        let folder = self.folder(node)?;
        let dots: [(u64, &[u8], NodeId); 2] = [(1, b".", node), (2, b"..", folder.parent)];
        let dots = dots.into_iter().filter(|(number, ..)| *number > offset);
        for (number, name, node) in dots.chain(folder.behind(offset)) {
            let dirent = DirEntry {
                ino: node.0,
                offset: number,
                kind: self.inode(node).map(|inode| inode.attr(node).kind()).ok(),
                name,
            };
            if !sink.push(&dirent, None) {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&mut self, node: NodeId, _handle: Handle) {
        self.release_use(node, 1);
    }

    fn setxattr(&mut self, node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        let inode = self.inode(node)?;
        let old = inode.xattrs.get(name.to_bytes()).map(|value| value.len());
        match (flags.cast_signed(), old) {
            (libc::XATTR_CREATE, Some(_)) => return Err(Errno::EEXIST),
            (libc::XATTR_REPLACE, None) => return Err(Errno::ENODATA),
            _ => {}
        }
        let taken = |value: usize| XATTR_COST + name.to_bytes().len() + value;
        let (before, after) = (old.map_or(0, taken), taken(value.len()));
        if inode.xattrs_len().saturating_sub(before) + after > MAX_XATTRS {
            return Err(Errno::ENOSPC);
        }
        self.reserve(after.saturating_sub(before))?;
        self.bytes = self.bytes.saturating_sub(before.saturating_sub(after));
        self.inode_mut(node)?
            .xattrs
            .insert(name.to_bytes().into(), value.into());
        Ok(())
    }

    fn getxattr(&mut self, node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()> {
        let xattrs = &self.inode(node)?.xattrs;
        value.extend_from_slice(xattrs.get(name.to_bytes()).ok_or(Errno::ENODATA)?);
        Ok(())
    }

    fn listxattr(&mut self, node: NodeId, names: &mut Vec<u8>) -> Result<()> {
        for name in self.inode(node)?.xattrs.keys() {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(())
    }

    fn removexattr(&mut self, node: NodeId, name: &CStr) -> Result<()> {
        let old = self
            .inode_mut(node)?
            .xattrs
            .remove(name.to_bytes())
            .ok_or(Errno::ENODATA)?;
        let taken = XATTR_COST + name.to_bytes().len() + old.len();
        self.bytes = self.bytes.saturating_sub(taken);
        Ok(())
    }
}
