//! Any file system, unchangeable.

use std::ffi::CStr;

use fuse_wire::{InitFlags, Name};

use crate::errno::Result;
use crate::server::opens_for_change;
use crate::{
    Attr, Completion, Context, DataOut, DirSink, Entry, Errno, FileSystem, Handle, Ioctl, LockRange, NodeId, Opened,
    Options, StatFs,
};

/// Serves what is in `F` and refuses to change it.
///
/// The server refuses every operation that changes something, whatever the guest mounted; what gets here all the same
/// meets the default of [`FileSystem`], which is not to have the operation.
#[derive(Debug)]
pub struct ReadOnly<F>(
    /// What is served.
    pub F,
);

impl<F: FileSystem> FileSystem for ReadOnly<F> {
    fn options(&self) -> Options {
        Options {
            read_only: true,
            ..self.0.options()
        }
    }

    fn mounted(&mut self, negotiated: InitFlags) {
        self.0.leave_unchanged();
        self.0.mounted(negotiated);
    }

    fn leave_unchanged(&mut self) {
        self.0.leave_unchanged();
    }

    fn unmounted(&mut self) {
        self.0.unmounted();
    }

    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.0.lookup(parent, name)
    }

    fn forget(&mut self, node: NodeId, count: u64) {
        self.0.forget(node, count);
    }

    fn getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<Attr> {
        self.0.getattr(node, handle)
    }

    fn readlink(&mut self, node: NodeId, target: &mut Vec<u8>) -> Result<()> {
        self.0.readlink(node, target)
    }

    fn open(&mut self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        if opens_for_change(flags) {
            return Err(Errno::EROFS);
        }
        self.0.open(node, flags, kill_suidgid)
    }

    fn read(&mut self, node: NodeId, handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()> {
        self.0.read(node, handle, offset, out)
    }

    fn statfs(&mut self, node: NodeId) -> Result<StatFs> {
        self.0.statfs(node)
    }

    fn release(&mut self, node: NodeId, handle: Handle, flock_owner: Option<u64>) {
        self.0.release(node, handle, flock_owner);
    }

    fn flush(&mut self, node: NodeId, handle: Handle, lock_owner: u64) -> Result<()> {
        self.0.flush(node, handle, lock_owner)
    }

    fn fsync(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        self.0.fsync(node, handle, data_only)
    }

    fn opendir(&mut self, node: NodeId, flags: u32) -> Result<Opened> {
        self.0.opendir(node, flags)
    }

    fn readdir(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.0.readdir(node, handle, offset, sink)
    }

    fn readdirplus(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.0.readdirplus(node, handle, offset, sink)
    }

    fn releasedir(&mut self, node: NodeId, handle: Handle) {
        self.0.releasedir(node, handle);
    }

    fn fsyncdir(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        self.0.fsyncdir(node, handle, data_only)
    }

    fn getxattr(&mut self, node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()> {
        self.0.getxattr(node, name, value)
    }

    fn listxattr(&mut self, node: NodeId, names: &mut Vec<u8>) -> Result<()> {
        self.0.listxattr(node, names)
    }

    fn access(&mut self, by: &Context, node: NodeId, mask: u32) -> Result<()> {
        self.0.access(by, node, mask)
    }

    fn getlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange) -> Result<LockRange> {
        self.0.getlk(node, handle, owner, wanted)
    }

    fn setlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange, flock: bool) -> Result<()> {
        self.0.setlk(node, handle, owner, wanted, flock)
    }

    fn ioctl(
        &mut self,
        by: &Context,
        node: NodeId,
        handle: Handle,
        call: &Ioctl<'_>,
        output: &mut Vec<u8>,
    ) -> Result<i32> {
        self.0.ioctl(by, node, handle, call, output)
    }

    fn lseek(&mut self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        self.0.lseek(node, handle, offset, whence)
    }
}
