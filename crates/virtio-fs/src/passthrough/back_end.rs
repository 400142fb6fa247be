//! [`Passthrough`] as a back-end: what an operation does is the `do_` function of its name, in the module for its kind.

use std::ffi::CStr;

use fuse_wire::{InitFlags, Name, WriteFlags};

use super::Passthrough;
use crate::errno::Result;
use crate::{
    Attr, Change, Completion, Context, DataIn, DataOut, DirSink, Entry, FileSystem, Handle, LockRange, NodeId, Opened,
    Options, StatFs,
};

impl FileSystem for Passthrough {
    fn options(&self) -> Options {
        self.config.options()
    }

    fn mounted(&mut self, negotiated: InitFlags) {
        self.negotiated = negotiated;
    }

    fn leave_unchanged(&mut self) {
        self.config.read_only = true;
    }

    fn unmounted(&mut self) {
        self.reset();
    }

    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.do_lookup(parent, name)
    }

    fn forget(&mut self, node: NodeId, count: u64) {
        self.forget_node(node, count);
    }

    fn getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<Attr> {
        self.do_getattr(node, handle)
    }

    fn setattr(&mut self, node: NodeId, handle: Option<Handle>, change: &Change) -> Result<Attr> {
        self.do_setattr(node, handle, change)
    }

    fn readlink(&mut self, node: NodeId, target: &mut Vec<u8>) -> Result<()> {
        self.do_readlink(node, target)
    }

    fn symlink(&mut self, by: &Context, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        self.do_symlink(by, parent, name, target)
    }

    fn mknod(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32, device: (u32, u32)) -> Result<Entry> {
        self.do_mknod(by, parent, name, mode, device)
    }

    fn mkdir(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        self.do_mkdir(by, parent, name, mode)
    }

    fn unlink(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.do_unlink(parent, name)
    }

    fn rmdir(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.do_rmdir(parent, name)
    }

    fn rename(
        &mut self,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: u32,
    ) -> Result<()> {
        self.do_rename(parent, name, new_parent, new_name, flags)
    }

    fn link(&mut self, node: NodeId, new_parent: NodeId, new_name: Name<'_>) -> Result<Entry> {
        self.do_link(node, new_parent, new_name)
    }

    fn open(&mut self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        self.do_open(node, flags, kill_suidgid)
    }

    fn create(
        &mut self,
        by: &Context,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: u32,
    ) -> Result<(Entry, Opened)> {
        self.do_create(by, parent, name, mode, flags)
    }

    fn tmpfile(&mut self, by: &Context, parent: NodeId, mode: u32, flags: u32) -> Result<(Entry, Opened)> {
        self.do_tmpfile(by, parent, mode, flags)
    }

    fn read(&mut self, node: NodeId, handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()> {
        self.do_read(node, handle, offset, out)
    }

    fn write(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        data: &mut DataIn<'_>,
        flags: WriteFlags,
    ) -> Result<u32> {
        self.do_write(node, handle, offset, data, flags)
    }

    fn statfs(&mut self, node: NodeId) -> Result<StatFs> {
        self.do_statfs(node)
    }

    fn release(&mut self, node: NodeId, handle: Handle, flock_owner: Option<u64>) {
        if flock_owner.is_some() {
            self.unlock_file(node, handle);
        }
        self.close(node, handle);
    }

    fn flush(&mut self, node: NodeId, _handle: Handle, lock_owner: u64) -> Result<()> {
        self.do_flush(node, lock_owner)
    }

    fn fsync(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        self.do_fsync(node, handle, data_only)
    }

    fn opendir(&mut self, node: NodeId, _flags: u32) -> Result<Opened> {
        self.do_opendir(node)
    }

    fn readdir(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.do_readdir(node, handle, offset, false, sink)
    }

    fn readdirplus(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.do_readdir(node, handle, offset, true, sink)
    }

    fn releasedir(&mut self, node: NodeId, handle: Handle) {
        self.close(node, handle);
    }

    fn fsyncdir(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        self.do_fsync(node, handle, data_only)
    }

    fn setxattr(&mut self, node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        self.do_setxattr(node, name, value, flags)
    }

    fn getxattr(&mut self, node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()> {
        self.do_getxattr(node, name, value)
    }

    fn listxattr(&mut self, node: NodeId, names: &mut Vec<u8>) -> Result<()> {
        self.do_listxattr(node, names)
    }

    fn removexattr(&mut self, node: NodeId, name: &CStr) -> Result<()> {
        self.do_removexattr(node, name)
    }

    fn access(&mut self, by: &Context, node: NodeId, mask: u32) -> Result<()> {
        self.do_access(by, node, mask)
    }

    fn getlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange) -> Result<LockRange> {
        self.do_getlk(node, handle, owner, wanted)
    }

    fn setlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange, flock: bool) -> Result<()> {
        self.do_setlk(node, handle, owner, wanted, flock)
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
        self.do_fallocate(by, node, handle, mode, offset, length)
    }

    fn lseek(&mut self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        self.do_lseek(node, handle, offset, whence)
    }

    fn copy_file_range(
        &mut self,
        by: &Context,
        from: (NodeId, Handle, u64),
        to: (NodeId, Handle, u64),
        length: u64,
    ) -> Result<u32> {
        self.do_copy_file_range(by, from, to, length)
    }

    fn syncfs(&mut self, node: NodeId) -> Result<Completion> {
        self.do_syncfs(node)
    }
}
