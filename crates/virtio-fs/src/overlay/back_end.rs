//! [`Overlay`] as a back-end: what is virtual is answered here, the rest goes through.

use std::ffi::CStr;

use fuse_wire::{InitFlags, Name, OpenOutFlags, WriteFlags};

use super::{IOCTL_EXIT_CODE, IOCTL_NO_PROGRAM, Overlay, tree};
use crate::errno::{Errno, Result};
use crate::seek::seek_in_data;
use crate::{
    Attr, Change, Completion, Context, DataIn, DataOut, DirSink, Entry, FileSystem, Handle, Ioctl, LockRange, NodeId,
    Opened, Options, StatFs,
};

fn is_virtual(node: NodeId) -> bool {
    tree::index(node.0).is_some()
}

/// The node underneath; for one that is virtual there is none, and the answer is `otherwise`.
fn beneath(node: NodeId, otherwise: Errno) -> Result<NodeId> {
    if is_virtual(node) { Err(otherwise) } else { Ok(node) }
}

/// For what concerns the file system underneath as a whole.
fn beneath_or_root(node: NodeId) -> NodeId {
    if is_virtual(node) { NodeId::ROOT } else { node }
}

impl<F: FileSystem> Overlay<F> {
    /// The bytes of a virtual file.
    fn bytes(&self, node: NodeId) -> Result<&[u8]> {
        let found = tree::index(node.0)
            .and_then(|index| self.tree.get(index))
            .ok_or(Errno::ESTALE)?;
        let (_, content) = found.file.as_ref().ok_or(Errno::EISDIR)?;
        Ok(content.bytes())
    }

    fn open_virtual(&self, node: NodeId, index: usize, flags: u32) -> Result<Opened> {
        let changes = libc::O_ACCMODE | libc::O_TRUNC;
        if flags.cast_signed() & changes != libc::O_RDONLY {
            return Err(Errno::EROFS);
        }
        self.bytes(node)?;
        Ok(Opened {
            handle: tree::handle(index),
            flags: OpenOutFlags::KEEP_CACHE,
        })
    }

    /// Whoever of both is asked first tells the guest's kernel whether to ask at all.
    fn seek_virtual(&mut self, node: NodeId, offset: u64, whence: u32) -> Result<u64> {
        if self.inner.lseek(NodeId::ROOT, Handle(0), offset, whence) == Err(Errno::ENOSYS) {
            return Err(Errno::ENOSYS);
        }
        seek_in_data(self.bytes(node)?.len() as u64, offset, whence)
    }
}

impl<F: FileSystem> FileSystem for Overlay<F> {
    fn options(&self) -> Options {
        self.inner.options()
    }

    fn mounted(&mut self, negotiated: InitFlags) {
        self.inner.mounted(negotiated);
    }

    fn leave_unchanged(&mut self) {
        self.inner.leave_unchanged();
    }

    fn unmounted(&mut self) {
        self.anchors.clear();
        self.held.clear();
        self.inner.unmounted();
    }

    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.find(parent, name)
    }

    fn forget(&mut self, node: NodeId, count: u64) {
        if let Some(index) = tree::index(node.0) {
            self.let_go(index, count);
        } else {
            self.forgotten(node, count);
            self.inner.forget(node, count);
        }
    }

    fn getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<Attr> {
        match tree::index(node.0) {
            Some(index) => self.tree.attr(index).ok_or(Errno::ESTALE),
            None => self.inner.getattr(node, handle),
        }
    }

    fn setattr(&mut self, node: NodeId, handle: Option<Handle>, change: &Change) -> Result<Attr> {
        self.inner.setattr(beneath(node, Errno::EROFS)?, handle, change)
    }

    fn readlink(&mut self, node: NodeId, target: &mut Vec<u8>) -> Result<()> {
        self.inner.readlink(beneath(node, Errno::EINVAL)?, target)
    }

    fn symlink(&mut self, by: &Context, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        self.may_make(parent, name)?;
        self.inner.symlink(by, parent, name, target)
    }

    fn mknod(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32, device: (u32, u32)) -> Result<Entry> {
        self.may_make(parent, name)?;
        self.inner.mknod(by, parent, name, mode, device)
    }

    fn mkdir(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        self.may_make(parent, name)?;
        self.inner.mkdir(by, parent, name, mode)
    }

    fn unlink(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.may_remove(parent, name, Errno::EISDIR)?;
        self.inner.unlink(parent, name)
    }

    fn rmdir(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.may_remove(parent, name, Errno::ENOTEMPTY)?;
        self.inner.rmdir(parent, name)
    }

    fn rename(
        &mut self,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: u32,
    ) -> Result<()> {
        // What is virtual has its place in the tree, and does not move along.
        let replaced = match flags {
            libc::RENAME_EXCHANGE => Errno::EBUSY,
            _ => Errno::ENOTEMPTY,
        };
        self.may_remove(parent, name, Errno::EBUSY)?;
        self.may_remove(new_parent, new_name, replaced)?;
        self.inner.rename(parent, name, new_parent, new_name, flags)
    }

    fn link(&mut self, node: NodeId, new_parent: NodeId, new_name: Name<'_>) -> Result<Entry> {
        let node = beneath(node, Errno::EXDEV)?;
        self.may_make(new_parent, new_name)?;
        self.inner.link(node, new_parent, new_name)
    }

    fn open(&mut self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        match tree::index(node.0) {
            Some(index) => self.open_virtual(node, index, flags),
            None => self.inner.open(node, flags, kill_suidgid),
        }
    }

    fn create(
        &mut self,
        by: &Context,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: u32,
    ) -> Result<(Entry, Opened)> {
        self.may_make(parent, name)?;
        self.inner.create(by, parent, name, mode, flags)
    }

    fn tmpfile(&mut self, by: &Context, parent: NodeId, mode: u32, flags: u32) -> Result<(Entry, Opened)> {
        self.inner.tmpfile(by, beneath(parent, Errno::EROFS)?, mode, flags)
    }

    fn read(&mut self, node: NodeId, handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()> {
        if !is_virtual(node) {
            return self.inner.read(node, handle, offset, out);
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        out.put(self.bytes(node)?.get(offset..).unwrap_or_default())
    }

    fn write(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        data: &mut DataIn<'_>,
        flags: WriteFlags,
    ) -> Result<u32> {
        self.inner
            .write(beneath(node, Errno::EROFS)?, handle, offset, data, flags)
    }

    fn statfs(&mut self, node: NodeId) -> Result<StatFs> {
        self.inner.statfs(beneath_or_root(node))
    }

    fn release(&mut self, node: NodeId, handle: Handle, flock_owner: Option<u64>) {
        if !is_virtual(node) {
            self.inner.release(node, handle, flock_owner);
        }
    }

    // ENOSYS here would stop the guest's kernel from asking for any file, so virtual files say that it is done.

    fn flush(&mut self, node: NodeId, handle: Handle, lock_owner: u64) -> Result<()> {
        if is_virtual(node) {
            Ok(())
        } else {
            self.inner.flush(node, handle, lock_owner)
        }
    }

    fn fsync(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        if is_virtual(node) {
            Ok(Completion::Done)
        } else {
            self.inner.fsync(node, handle, data_only)
        }
    }

    fn opendir(&mut self, node: NodeId, flags: u32) -> Result<Opened> {
        let Some(index) = tree::index(node.0) else {
            return self.inner.opendir(node, flags);
        };
        let found = self.tree.get(index).ok_or(Errno::ESTALE)?;
        if found.file.is_some() {
            return Err(Errno::ENOTDIR);
        }
        Ok(Opened {
            handle: tree::handle(index),
            flags: OpenOutFlags::empty(),
        })
    }

    fn readdir(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.list(node, handle, offset, false, sink)
    }

    fn readdirplus(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.list(node, handle, offset, true, sink)
    }

    fn releasedir(&mut self, node: NodeId, handle: Handle) {
        if !is_virtual(node) {
            self.inner.releasedir(node, handle);
        }
    }

    fn fsyncdir(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        if is_virtual(node) {
            Ok(Completion::Done)
        } else {
            self.inner.fsyncdir(node, handle, data_only)
        }
    }

    fn setxattr(&mut self, node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        self.inner.setxattr(beneath(node, Errno::EROFS)?, name, value, flags)
    }

    fn getxattr(&mut self, node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()> {
        self.inner.getxattr(beneath(node, Errno::ENODATA)?, name, value)
    }

    fn listxattr(&mut self, node: NodeId, names: &mut Vec<u8>) -> Result<()> {
        if is_virtual(node) {
            Ok(())
        } else {
            self.inner.listxattr(node, names)
        }
    }

    fn removexattr(&mut self, node: NodeId, name: &CStr) -> Result<()> {
        self.inner.removexattr(beneath(node, Errno::EROFS)?, name)
    }

    fn access(&mut self, by: &Context, node: NodeId, mask: u32) -> Result<()> {
        if is_virtual(node) {
            Ok(())
        } else {
            self.inner.access(by, node, mask)
        }
    }

    fn getlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange) -> Result<LockRange> {
        self.inner
            .getlk(beneath(node, Errno::EOPNOTSUPP)?, handle, owner, wanted)
    }

    fn setlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange, flock: bool) -> Result<()> {
        self.inner
            .setlk(beneath(node, Errno::EOPNOTSUPP)?, handle, owner, wanted, flock)
    }

    fn ioctl(
        &mut self,
        by: &Context,
        node: NodeId,
        handle: Handle,
        call: &Ioctl<'_>,
        output: &mut Vec<u8>,
    ) -> Result<i32> {
        match call.command {
            IOCTL_EXIT_CODE | IOCTL_NO_PROGRAM if node == NodeId::ROOT => {
                // The guest's kernel fills in who asks, so a program cannot pass for the init.
                if by.pid == 1 {
                    self.told(call.command, call.argument)
                } else {
                    Err(Errno::EPERM)
                }
            }
            _ => self
                .inner
                .ioctl(by, beneath(node, Errno::ENOTTY)?, handle, call, output),
        }
    }

    fn fallocate(
        &mut self,
        by: &Context,
        node: NodeId,
        handle: Handle,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        self.inner
            .fallocate(by, beneath(node, Errno::EROFS)?, handle, mode, offset, length)
    }

    fn lseek(&mut self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        if is_virtual(node) {
            self.seek_virtual(node, offset, whence)
        } else {
            self.inner.lseek(node, handle, offset, whence)
        }
    }

    fn copy_file_range(
        &mut self,
        by: &Context,
        from: (NodeId, Handle, u64),
        to: (NodeId, Handle, u64),
        length: u64,
    ) -> Result<u32> {
        let from = (beneath(from.0, Errno::EXDEV)?, from.1, from.2);
        let to = (beneath(to.0, Errno::EXDEV)?, to.1, to.2);
        self.inner.copy_file_range(by, from, to, length)
    }

    fn syncfs(&mut self, node: NodeId) -> Result<Completion> {
        self.inner.syncfs(beneath_or_root(node))
    }
}
