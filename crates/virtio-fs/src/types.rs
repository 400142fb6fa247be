//! The values that a file system and the server pass each other.

use std::fmt;
use std::time::Duration;

use fuse_wire::{Attr as WireAttr, InitFlags, Name, OpenOutFlags, WireStatx, WireTime};

use crate::errno::Result;

/// What a file system calls an inode. 1 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root.
    pub const ROOT: Self = Self(fuse_wire::ROOT_ID);
}

/// What a file system calls an open file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// What is left of an operation, to be done on any thread.
pub struct Job(Box<dyn FnOnce() -> Result<()> + Send>);

impl Job {
    /// A job that consists of this call.
    pub fn new(call: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self(Box::new(call))
    }

    /// Does it.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn run(self) -> Result<()> {
        (self.0)()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// What came of an operation that may take as long as a disk does.
#[derive(Debug)]
#[must_use]
pub enum Completion {
    /// It is done.
    Done,
    /// It is done when this is. The back-end serves other requests meanwhile, those for the same file among them.
    Later(Job),
}

/// On whose behalf a request comes, as the guest's kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Context {
    /// User ID in the guest.
    pub uid: u32,
    /// Group ID in the guest.
    pub gid: u32,
    /// Process ID in the guest; 0 for the kernel's own requests.
    pub pid: u32,
}

/// The kind of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl FileKind {
    /// From the S_IFMT bits of a mode.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return None,
        })
    }

    /// The S_IFMT bits.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }

    /// The DT_ number of directory entries.
    #[must_use]
    pub fn dirent_type(self) -> u32 {
        self.mode() >> 12
    }
}

/// A point in time: seconds since 1970, which may be negative, and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What `stat` shows of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attr {
    /// Inode number, as shown to the guest's programs.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Size on disk in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth, where it is known.
    pub btime: Option<Timestamp>,
    /// Kind and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Preferred size of reads and writes, in bytes.
    pub blksize: u32,
}

impl Attr {
    /// The kind in `mode`; a mode without one counts as regular file.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode).unwrap_or(FileKind::Regular)
    }

    pub(crate) fn to_wire(self) -> WireAttr {
        WireAttr {
            ino: self.ino.into(),
            size: self.size.into(),
            blocks: self.blocks.into(),
            atime: self.atime.secs.cast_unsigned().into(),
            mtime: self.mtime.secs.cast_unsigned().into(),
            ctime: self.ctime.secs.cast_unsigned().into(),
            atimensec: self.atime.nanos.into(),
            mtimensec: self.mtime.nanos.into(),
            ctimensec: self.ctime.nanos.into(),
            mode: self.mode.into(),
            nlink: self.nlink.into(),
            uid: self.uid.into(),
            gid: self.gid.into(),
            rdev: encode_device(self.rdev).into(),
            blksize: self.blksize.into(),
            flags: 0.into(),
        }
    }

    pub(crate) fn to_wire_statx(self) -> WireStatx {
        let time = |t: Timestamp| WireTime {
            tv_sec: t.secs.into(),
            tv_nsec: t.nanos.into(),
            reserved: 0.into(),
        };
        let known = libc::STATX_BASIC_STATS | if self.btime.is_some() { libc::STATX_BTIME } else { 0 };
        WireStatx {
            mask: known.into(),
            blksize: self.blksize.into(),
            nlink: self.nlink.into(),
            uid: self.uid.into(),
            gid: self.gid.into(),
            mode: u16::try_from(self.mode & 0xffff).unwrap_or(0).into(),
            ino: self.ino.into(),
            size: self.size.into(),
            blocks: self.blocks.into(),
            atime: time(self.atime),
            btime: time(self.btime.unwrap_or_default()),
            ctime: time(self.ctime),
            mtime: time(self.mtime),
            rdev_major: self.rdev.0.into(),
            rdev_minor: self.rdev.1.into(),
            ..WireStatx::default()
        }
    }
}

/// Device numbers as the kernel packs them into 32 bits: 12 bits of major number among 20 bits of minor number.
fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

/// The reverse of [`encode_device`].
pub(crate) fn decode_device(packed: u32) -> (u32, u32) {
    (packed >> 8 & 0xfff, packed & 0xff | packed >> 12 & 0xf_ff00)
}

/// A name that was found or made: what it leads to. Each one given to the guest counts as one lookup, to be taken back
/// by [`forget`](crate::FileSystem::forget).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// An open file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub handle: Handle,
    /// How the guest's kernel is to cache it.
    pub flags: OpenOutFlags,
}

/// A directory entry. `name` may also be `.` or `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// What continues after this entry; never 0.
    pub offset: u64,
    /// Kind, where it is known.
    pub kind: Option<FileKind>,
    /// The name without a NUL.
    pub name: &'a [u8],
}

impl<'a> DirEntry<'a> {
    /// An entry for what `entry` describes.
    #[must_use]
    pub fn new(name: Name<'a>, entry: &Entry, offset: u64) -> Self {
        Self {
            ino: entry.attr.ino,
            offset,
            kind: FileKind::from_mode(entry.attr.mode),
            name: name.to_bytes(),
        }
    }
}

/// A new value for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    /// The host's present.
    Now,
    /// This one.
    To(Timestamp),
}

/// What SETATTR is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Change {
    /// Permission bits, without the kind.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<TimeChange>,
    /// Last change of the data.
    pub mtime: Option<TimeChange>,
    /// Clear the set-user-ID bit, and the set-group-ID bit of what the group may execute.
    pub kill_suidgid: bool,
}

/// Space and inodes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StatFs {
    /// Size in units of `fragment_size`.
    pub blocks: u64,
    /// Free, in the same units.
    pub blocks_free: u64,
    /// Free for users without privileges, in the same units.
    pub blocks_available: u64,
    /// Number of inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred block size in bytes.
    pub block_size: u32,
    /// Unit of the block counts in bytes.
    pub fragment_size: u32,
    /// The longest name in bytes.
    pub name_max: u32,
}

/// A byte range to lock, or a lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// F_RDLCK, F_WRLCK or F_UNLCK.
    pub kind: u32,
    /// First byte.
    pub start: u64,
    /// Last byte; 2^63 - 1 for the end of the file, wherever it is.
    pub end: u64,
    /// Process in the guest, 0 where it is not known.
    pub pid: u32,
}

/// A device control as a program in the guest made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ioctl<'a> {
    /// The command.
    pub command: u32,
    /// The argument: a number, or an address in the program that means nothing here.
    pub argument: u64,
    /// What the guest's kernel copied from the program, where the command's bits say how much.
    pub input: &'a [u8],
}

/// What holds for a whole file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The server refuses whatever would change something.
    pub read_only: bool,
    /// How long the guest may believe that a name leads to its inode.
    pub entry_valid: Duration,
    /// How long the guest may believe attributes.
    pub attr_valid: Duration,
    /// How long the guest may believe that there is no such name; zero for not at all.
    pub negative_valid: Duration,
    /// Features to offer besides those that the server handles alone.
    pub flags: InitFlags,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            entry_valid: Duration::from_secs(1),
            attr_valid: Duration::from_secs(1),
            negative_valid: Duration::ZERO,
            flags: InitFlags::empty(),
        }
    }
}
