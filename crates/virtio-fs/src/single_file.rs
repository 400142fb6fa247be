//! A single file as a share.
//!
//! A FUSE mount has a folder for its root. So the file is shown as the only name in a folder that exists here alone; the
//! guest mounts that somewhere and binds the file to where it is wanted.

use std::ffi::{CStr, CString};

use fuse_wire::{InitFlags, Name, OpenOutFlags, RequestError, WriteFlags};

use crate::errno::{Errno, Result};
use crate::{
    Attr, Change, Completion, Context, DataIn, DataOut, DirEntry, DirSink, Entry, FileKind, FileSystem, Handle,
    LockRange, NodeId, Opened, Options, StatFs,
};

/// The file's node ID towards the guest; underneath it is the root.
const FILE: NodeId = NodeId(2);

/// The folder's handle.
const FOLDER: Handle = Handle(1 << 63);

/// Serves a back-end whose root is a file, such as a [`Passthrough`](crate::passthrough::Passthrough) of one.
///
/// It is the file that is shared, not its name: when the host puts another file in its place, the guest keeps the old.
#[derive(Debug)]
pub struct SingleFile<F> {
    file: F,
    name: CString,
}

impl<F: FileSystem> SingleFile<F> {
    /// Shows `file` under `name`.
    ///
    /// # Errors
    /// When no file can have that name.
    pub fn new(file: F, name: impl Into<Vec<u8>>) -> std::result::Result<Self, RequestError> {
        let name = CString::new(name).map_err(|_| RequestError::BadName)?;
        Name::new(&name)?;
        Ok(Self { file, name })
    }

    /// The node underneath, which is the file or nothing.
    fn on_file(node: NodeId, otherwise: Errno) -> Result<NodeId> {
        match node {
            FILE => Ok(NodeId::ROOT),
            NodeId::ROOT => Err(otherwise),
            _ => Err(Errno::ESTALE),
        }
    }

    fn entry(&mut self) -> Result<Entry> {
        Ok(Entry {
            node: FILE,
            attr: self.file.getattr(NodeId::ROOT, None)?,
        })
    }

    fn folder(&mut self) -> Result<Attr> {
        let file = self.file.getattr(NodeId::ROOT, None)?;
        let mode = FileKind::Directory.mode() | 0o755;
        // Any number but the file's own.
        Ok(Attr {
            ino: !file.ino,
            mode,
            nlink: 2,
            size: 0,
            blocks: 0,
            ..file
        })
    }
}

impl<F: FileSystem> FileSystem for SingleFile<F> {
    fn options(&self) -> Options {
        let mut options = self.file.options();
        options.flags -= InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO;
        options
    }

    fn mounted(&mut self, negotiated: InitFlags) {
        self.file.mounted(negotiated);
    }

    fn leave_unchanged(&mut self) {
        self.file.leave_unchanged();
    }

    fn unmounted(&mut self) {
        self.file.unmounted();
    }

    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        match parent {
            NodeId::ROOT if name.as_c_str() == self.name.as_c_str() => self.entry(),
            NodeId::ROOT => Err(Errno::ENOENT),
            FILE => Err(Errno::ENOTDIR),
            _ => Err(Errno::ESTALE),
        }
    }

    fn getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<Attr> {
        match node {
            NodeId::ROOT => self.folder(),
            _ => self.file.getattr(Self::on_file(node, Errno::ESTALE)?, handle),
        }
    }

    fn setattr(&mut self, node: NodeId, handle: Option<Handle>, change: &Change) -> Result<Attr> {
        self.file.setattr(Self::on_file(node, Errno::EROFS)?, handle, change)
    }

    fn open(&mut self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        self.file.open(Self::on_file(node, Errno::EISDIR)?, flags, kill_suidgid)
    }

    fn mknod(&mut self, _: &Context, _: NodeId, _: Name<'_>, _: u32, _: (u32, u32)) -> Result<Entry> {
        Err(Errno::EROFS)
    }

    fn create(&mut self, _: &Context, _: NodeId, _: Name<'_>, _: u32, _: u32) -> Result<(Entry, Opened)> {
        Err(Errno::EROFS)
    }

    fn mkdir(&mut self, _: &Context, _: NodeId, _: Name<'_>, _: u32) -> Result<Entry> {
        Err(Errno::EROFS)
    }

    fn symlink(&mut self, _: &Context, _: NodeId, _: Name<'_>, _: &CStr) -> Result<Entry> {
        Err(Errno::EROFS)
    }

    fn link(&mut self, _: NodeId, _: NodeId, _: Name<'_>) -> Result<Entry> {
        Err(Errno::EROFS)
    }

    fn unlink(&mut self, _: NodeId, _: Name<'_>) -> Result<()> {
        Err(Errno::EROFS)
    }

    fn rmdir(&mut self, _: NodeId, _: Name<'_>) -> Result<()> {
        Err(Errno::EROFS)
    }

    fn rename(&mut self, _: NodeId, _: Name<'_>, _: NodeId, _: Name<'_>, _: u32) -> Result<()> {
        Err(Errno::EROFS)
    }

    fn read(&mut self, node: NodeId, handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()> {
        self.file.read(Self::on_file(node, Errno::EISDIR)?, handle, offset, out)
    }

    fn write(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        data: &mut DataIn<'_>,
        flags: WriteFlags,
    ) -> Result<u32> {
        self.file
            .write(Self::on_file(node, Errno::EISDIR)?, handle, offset, data, flags)
    }

    fn statfs(&mut self, _node: NodeId) -> Result<StatFs> {
        self.file.statfs(NodeId::ROOT)
    }

    fn release(&mut self, node: NodeId, handle: Handle, flock_owner: Option<u64>) {
        if node == FILE {
            self.file.release(NodeId::ROOT, handle, flock_owner);
        }
    }

    fn flush(&mut self, node: NodeId, handle: Handle, lock_owner: u64) -> Result<()> {
        self.file.flush(Self::on_file(node, Errno::EBADF)?, handle, lock_owner)
    }

    fn fsync(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        self.file.fsync(Self::on_file(node, Errno::EBADF)?, handle, data_only)
    }

    fn opendir(&mut self, node: NodeId, _flags: u32) -> Result<Opened> {
        match node {
            NodeId::ROOT => Ok(Opened {
                handle: FOLDER,
                flags: OpenOutFlags::empty(),
            }),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn readdir(&mut self, node: NodeId, _handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        if node != NodeId::ROOT {
            return Err(Errno::ENOTDIR);
        }
        let (folder, file) = (self.folder()?.ino, self.entry()?.attr.ino);
        let (directory, regular) = (Some(FileKind::Directory), Some(FileKind::Regular));
        let entries: [(&[u8], u64, _); 3] = [
            (b".", folder, directory),
            (b"..", folder, directory),
            (self.name.to_bytes(), file, regular),
        ];
        let done = usize::try_from(offset).unwrap_or(usize::MAX);
        for (number, (name, ino, kind)) in (1..).zip(entries).skip(done) {
            let dirent = DirEntry {
                ino,
                offset: number,
                kind,
                name,
            };
            if !sink.push(&dirent, None) {
                break;
            }
        }
        Ok(())
    }

    fn fsyncdir(&mut self, _node: NodeId, _handle: Handle, _data_only: bool) -> Result<Completion> {
        Ok(Completion::Done)
    }

    fn setxattr(&mut self, node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        self.file
            .setxattr(Self::on_file(node, Errno::EROFS)?, name, value, flags)
    }

    fn getxattr(&mut self, node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()> {
        self.file.getxattr(Self::on_file(node, Errno::ENODATA)?, name, value)
    }

    fn listxattr(&mut self, node: NodeId, names: &mut Vec<u8>) -> Result<()> {
        match node {
            NodeId::ROOT => Ok(()),
            _ => self.file.listxattr(Self::on_file(node, Errno::ESTALE)?, names),
        }
    }

    fn removexattr(&mut self, node: NodeId, name: &CStr) -> Result<()> {
        self.file.removexattr(Self::on_file(node, Errno::EROFS)?, name)
    }

    fn getlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange) -> Result<LockRange> {
        self.file
            .getlk(Self::on_file(node, Errno::EISDIR)?, handle, owner, wanted)
    }

    fn setlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange, flock: bool) -> Result<()> {
        self.file
            .setlk(Self::on_file(node, Errno::EISDIR)?, handle, owner, wanted, flock)
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
        self.file
            .fallocate(by, Self::on_file(node, Errno::EISDIR)?, handle, mode, offset, length)
    }

    fn lseek(&mut self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        self.file
            .lseek(Self::on_file(node, Errno::EISDIR)?, handle, offset, whence)
    }

    fn copy_file_range(
        &mut self,
        by: &Context,
        from: (NodeId, Handle, u64),
        to: (NodeId, Handle, u64),
        length: u64,
    ) -> Result<u32> {
        let from = (Self::on_file(from.0, Errno::EISDIR)?, from.1, from.2);
        let to = (Self::on_file(to.0, Errno::EISDIR)?, to.1, to.2);
        self.file.copy_file_range(by, from, to, length)
    }

    fn syncfs(&mut self, _node: NodeId) -> Result<Completion> {
        self.file.syncfs(NodeId::ROOT)
    }
}
