//! A boxed back-end is a back-end, so that what to serve can be decided at run time.

use std::ffi::CStr;

use fuse_wire::{InitFlags, Name, WriteFlags};

use crate::errno::Result;
use crate::{
    Attr, Change, Completion, Context, DataIn, DataOut, DirSink, Entry, FileSystem, Handle, Ioctl, LockRange, NodeId,
    Opened, Options, StatFs,
};

/// A method of the same name and arguments on what is in the box.
macro_rules! forward {
    ($($name:ident($($argument:ident: $ty:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name(&mut self, $($argument: $ty),*) $(-> $result)? {
            (**self).$name($($argument),*)
        })*
    };
}

impl<F: FileSystem + ?Sized> FileSystem for Box<F> {
    fn options(&self) -> Options {
        (**self).options()
    }

    forward! {
        mounted(negotiated: InitFlags);
        leave_unchanged();
        unmounted();
        lookup(parent: NodeId, name: Name<'_>) -> Result<Entry>;
        forget(node: NodeId, count: u64);
        getattr(node: NodeId, handle: Option<Handle>) -> Result<Attr>;
        setattr(node: NodeId, handle: Option<Handle>, change: &Change) -> Result<Attr>;
        readlink(node: NodeId, target: &mut Vec<u8>) -> Result<()>;
        symlink(by: &Context, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry>;
        mknod(by: &Context, parent: NodeId, name: Name<'_>, mode: u32, device: (u32, u32)) -> Result<Entry>;
        mkdir(by: &Context, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry>;
        unlink(parent: NodeId, name: Name<'_>) -> Result<()>;
        rmdir(parent: NodeId, name: Name<'_>) -> Result<()>;
        rename(parent: NodeId, name: Name<'_>, new_parent: NodeId, new_name: Name<'_>, flags: u32) -> Result<()>;
        link(node: NodeId, new_parent: NodeId, new_name: Name<'_>) -> Result<Entry>;
        open(node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened>;
        create(by: &Context, parent: NodeId, name: Name<'_>, mode: u32, flags: u32) -> Result<(Entry, Opened)>;
        tmpfile(by: &Context, parent: NodeId, mode: u32, flags: u32) -> Result<(Entry, Opened)>;
        read(node: NodeId, handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()>;
        write(node: NodeId, handle: Handle, offset: u64, data: &mut DataIn<'_>, flags: WriteFlags) -> Result<u32>;
        statfs(node: NodeId) -> Result<StatFs>;
        release(node: NodeId, handle: Handle, flock_owner: Option<u64>);
        flush(node: NodeId, handle: Handle, lock_owner: u64) -> Result<()>;
        fsync(node: NodeId, handle: Handle, data_only: bool) -> Result<Completion>;
        opendir(node: NodeId, flags: u32) -> Result<Opened>;
        readdir(node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()>;
        readdirplus(node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()>;
        releasedir(node: NodeId, handle: Handle);
        fsyncdir(node: NodeId, handle: Handle, data_only: bool) -> Result<Completion>;
        setxattr(node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<()>;
        getxattr(node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()>;
        listxattr(node: NodeId, names: &mut Vec<u8>) -> Result<()>;
        removexattr(node: NodeId, name: &CStr) -> Result<()>;
        access(by: &Context, node: NodeId, mask: u32) -> Result<()>;
        getlk(node: NodeId, handle: Handle, owner: u64, wanted: &LockRange) -> Result<LockRange>;
        setlk(node: NodeId, handle: Handle, owner: u64, wanted: &LockRange, flock: bool) -> Result<()>;
        ioctl(by: &Context, node: NodeId, handle: Handle, call: &Ioctl<'_>, output: &mut Vec<u8>) -> Result<i32>;
        fallocate(by: &Context, node: NodeId, handle: Handle, mode: u32, offset: u64, length: u64) -> Result<()>;
        lseek(node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64>;
        copy_file_range(by: &Context, from: (NodeId, Handle, u64), to: (NodeId, Handle, u64), length: u64) -> Result<u32>;
        syncfs(node: NodeId) -> Result<Completion>;
    }
}
