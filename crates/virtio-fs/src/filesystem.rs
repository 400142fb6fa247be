//! What a back-end is.

use std::ffi::CStr;

use fuse_wire::{InitFlags, Name, WriteFlags};

use crate::errno::Result;
use crate::{
    Attr, Change, Completion, Context, DataIn, DataOut, DirEntry, Entry, Errno, Handle, Ioctl, LockRange, NodeId,
    Opened, Options, StatFs,
};

/// Where a folder's entries go.
pub trait DirSink {
    /// Whether an entry with a name of `name_len` bytes still fits.
    fn fits(&self, name_len: usize) -> bool;

    /// Adds an entry. False when it did not fit; the same entry is asked for again with the next request.
    ///
    /// With READDIRPLUS, `entry` is what the name leads to and counts as one lookup; `None` leaves it open.
    fn push(&mut self, dirent: &DirEntry<'_>, entry: Option<&Entry>) -> bool;
}

/// A back-end: a tree of files.
///
/// [`lookup`](Self::lookup) and [`getattr`](Self::getattr) make a tree that can be walked; with
/// [`readdir`](Self::readdir) and [`read`](Self::read) it can be listed and read. The rest answers ENOSYS unless it is
/// written, and the guest's kernel then does without or tells its programs.
///
/// Names are checked: see [`Name`]. Node IDs and handles are what the guest sent: look them up. A method that gives an
/// [`Entry`] counts one lookup of its node, and [`forget`](Self::forget) takes lookups back.
#[allow(unused_variables, reason = "defaults name what they are given")]
pub trait FileSystem: Send {
    /// What holds for the whole tree. Asked for at INIT.
    fn options(&self) -> Options {
        Options::default()
    }

    /// A guest mounts the tree. `negotiated` is what both sides can do.
    fn mounted(&mut self, negotiated: InitFlags) {}

    /// Nobody may change the tree through this back-end, nor may it by itself: times of access stay, and no file is opened for
    /// writing, if only to lock it. Called before [`mounted`](Self::mounted) by what wraps it, such as
    /// [`ReadOnly`](crate::ReadOnly).
    fn leave_unchanged(&mut self) {}

    /// The guest is gone, or unmounted the tree: nothing that was given out is in use any more. Called before the first
    /// [`mounted`](Self::mounted) too.
    fn unmounted(&mut self) {}

    /// Finds a name in a folder.
    ///
    /// # Errors
    /// ENOENT when there is no such name.
    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry>;

    /// Takes `count` lookups of a node back. With none left, the guest does not know the node any more.
    fn forget(&mut self, node: NodeId, count: u64) {}

    /// What `stat` shows.
    ///
    /// # Errors
    /// ESTALE for a node that is not known.
    fn getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<Attr>;

    /// Changes attributes and gives the new ones.
    ///
    /// # Errors
    /// As `chmod(2)`, `chown(2)`, `truncate(2)`, `utimensat(2)`.
    fn setattr(&mut self, node: NodeId, handle: Option<Handle>, change: &Change) -> Result<Attr> {
        Err(Errno::ENOSYS)
    }

    /// Puts the text of a symbolic link into `target`, which is empty.
    ///
    /// # Errors
    /// EINVAL when it is none.
    fn readlink(&mut self, node: NodeId, target: &mut Vec<u8>) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As `symlink(2)`.
    fn symlink(&mut self, by: &Context, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }

    /// Makes a file, a pipe, a socket or a device node. `mode` has kind and permissions.
    ///
    /// # Errors
    /// As `mknod(2)`.
    fn mknod(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32, device: (u32, u32)) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// As `mkdir(2)`.
    fn mkdir(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }

    /// Removes the name of anything but a folder.
    ///
    /// # Errors
    /// As `unlink(2)`.
    fn unlink(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// As `rmdir(2)`.
    fn rmdir(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Moves a name. `flags` is 0, RENAME_NOREPLACE, RENAME_EXCHANGE or RENAME_WHITEOUT.
    ///
    /// # Errors
    /// As `renameat2(2)`.
    fn rename(
        &mut self,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: u32,
    ) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Gives a node another name.
    ///
    /// # Errors
    /// As `link(2)`.
    fn link(&mut self, node: NodeId, new_parent: NodeId, new_name: Name<'_>) -> Result<Entry> {
        Err(Errno::ENOSYS)
    }

    /// Opens a file. `flags` are those of `open(2)` less O_CREAT, O_EXCL and O_NOCTTY. `kill_suidgid` goes with O_TRUNC.
    ///
    /// # Errors
    /// As `open(2)`. ENOSYS means that files need not be opened: reads then come with handle 0.
    fn open(&mut self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<Opened> {
        Err(Errno::ENOSYS)
    }

    /// Makes a file and opens it. One that is there is not opened, whatever `flags` say: nobody has checked whether the
    /// caller may.
    ///
    /// # Errors
    /// As `open(2)` with O_EXCL. ENOSYS makes the guest use MKNOD and OPEN.
    fn create(
        &mut self,
        by: &Context,
        parent: NodeId,
        name: Name<'_>,
        mode: u32,
        flags: u32,
    ) -> Result<(Entry, Opened)> {
        Err(Errno::ENOSYS)
    }

    /// Makes a file without a name in a folder and opens it.
    ///
    /// # Errors
    /// As `open(2)` with O_TMPFILE.
    fn tmpfile(&mut self, by: &Context, parent: NodeId, mode: u32, flags: u32) -> Result<(Entry, Opened)> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Reads at most `out.room()` bytes. Fewer means the end of the file.
    ///
    /// # Errors
    /// As `pread(2)`.
    fn read(&mut self, node: NodeId, handle: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Writes the `data` and gives how many bytes were written. See [`DataIn::take_to_file`] for programs that append.
    ///
    /// # Errors
    /// As `pwrite(2)`.
    fn write(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        data: &mut DataIn<'_>,
        flags: WriteFlags,
    ) -> Result<u32> {
        Err(Errno::ENOSYS)
    }

    /// Space and inodes.
    ///
    /// # Errors
    /// As `statfs(2)`.
    fn statfs(&mut self, node: NodeId) -> Result<StatFs> {
        Err(Errno::ENOSYS)
    }

    /// Closes an open file. There is no way to refuse. `flock_owner` had a lock on it.
    fn release(&mut self, node: NodeId, handle: Handle, flock_owner: Option<u64>) {}

    /// A descriptor of the open file was closed: drop the POSIX locks of `lock_owner`.
    ///
    /// # Errors
    /// What `close(2)` is to give. ENOSYS means that this need not be told again.
    fn flush(&mut self, node: NodeId, handle: Handle, lock_owner: u64) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// As `fsync(2)`. ENOSYS means that this need not be told again.
    fn fsync(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        Err(Errno::ENOSYS)
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// As `open(2)`. ENOSYS means that folders need not be opened.
    fn opendir(&mut self, node: NodeId, flags: u32) -> Result<Opened> {
        Err(Errno::ENOSYS)
    }

    /// Lists a folder from `offset` on, which is 0 or came with an entry.
    ///
    /// # Errors
    /// As `getdents(2)`. What is in `sink` by then goes to the guest all the same, which asks for what is behind it and is told
    /// of the error if there still is one.
    fn readdir(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Lists a folder and looks each name up. Asked for only where [`Options::flags`] has DO_READDIRPLUS.
    ///
    /// # Errors
    /// As [`readdir`](Self::readdir).
    fn readdirplus(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Closes an open folder.
    fn releasedir(&mut self, node: NodeId, handle: Handle) {}

    /// Brings a folder to the disk.
    ///
    /// # Errors
    /// As `fsync(2)`. ENOSYS means that this need not be told again.
    fn fsyncdir(&mut self, node: NodeId, handle: Handle, data_only: bool) -> Result<Completion> {
        Err(Errno::ENOSYS)
    }

    /// Sets an extended attribute. `flags` is 0, XATTR_CREATE or XATTR_REPLACE.
    ///
    /// # Errors
    /// As `setxattr(2)`. ENOSYS means that there are none at all.
    fn setxattr(&mut self, node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Puts the value of an extended attribute into `value`, which is empty.
    ///
    /// # Errors
    /// As `getxattr(2)`. ENOSYS means that there are none at all.
    fn getxattr(&mut self, node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Puts the names of all extended attributes into `names`, which is empty, each with its NUL.
    ///
    /// # Errors
    /// As `listxattr(2)`. ENOSYS means that there are none at all.
    fn listxattr(&mut self, node: NodeId, names: &mut Vec<u8>) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As `removexattr(2)`. ENOSYS means that there are none at all.
    fn removexattr(&mut self, node: NodeId, name: &CStr) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Whether `by` may do what `mask` says. Linux checks that itself and does not ask.
    ///
    /// # Errors
    /// EACCES. ENOSYS means that everything is allowed.
    fn access(&mut self, by: &Context, node: NodeId, mask: u32) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// A lock in the way of `wanted`, or F_UNLCK when there is none.
    ///
    /// # Errors
    /// As `fcntl(2)` with F_GETLK.
    fn getlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange) -> Result<LockRange> {
        Err(Errno::ENOSYS)
    }

    /// Takes or drops a lock without waiting. `flock` locks cover the whole file.
    ///
    /// # Errors
    /// EAGAIN when another lock is in the way.
    fn setlk(&mut self, node: NodeId, handle: Handle, owner: u64, wanted: &LockRange, flock: bool) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// A device control. What is put into `output` goes back, as much as the guest wants; the number is the result.
    ///
    /// # Errors
    /// ENOTTY for a command that is not known.
    fn ioctl(
        &mut self,
        by: &Context,
        node: NodeId,
        handle: Handle,
        call: &Ioctl<'_>,
        output: &mut Vec<u8>,
    ) -> Result<i32> {
        Err(Errno::ENOTTY)
    }

    /// Reserves, frees or zeroes a range. `mode` is that of `fallocate(2)`. For others than root it clears set-ID bits, as a
    /// WRITE does that says so.
    ///
    /// # Errors
    /// As `fallocate(2)`. ENOSYS means that there is no such thing here.
    fn fallocate(
        &mut self,
        by: &Context,
        node: NodeId,
        handle: Handle,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// Where the next data or the next hole is: `whence` is SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// As `lseek(2)`. ENOSYS makes the guest's kernel take the whole file for data.
    fn lseek(&mut self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        Err(Errno::ENOSYS)
    }

    /// Copies between two open files and gives how much; less than asked for is fine. Set-ID bits of the second are as with
    /// [`fallocate`](Self::fallocate).
    ///
    /// # Errors
    /// As `copy_file_range(2)`. ENOSYS makes the guest copy itself.
    fn copy_file_range(
        &mut self,
        by: &Context,
        from: (NodeId, Handle, u64),
        to: (NodeId, Handle, u64),
        length: u64,
    ) -> Result<u32> {
        Err(Errno::ENOSYS)
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// As `syncfs(2)`. ENOSYS means that this need not be told again.
    fn syncfs(&mut self, node: NodeId) -> Result<Completion> {
        Err(Errno::ENOSYS)
    }
}
