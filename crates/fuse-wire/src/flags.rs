//! Flag words of requests and replies.

use bitflags::bitflags;

bitflags! {
    /// Features that INIT negotiates: `flags` in bits 0 to 31, `flags2` in bits 32 to 63.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InitFlags: u64 {
        /// READ requests may run side by side.
        const ASYNC_READ = 1 << 0;
        /// POSIX locks are taken at the server.
        const POSIX_LOCKS = 1 << 1;
        /// OPEN truncates when asked to.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// LOOKUP of `.` and `..` works.
        const EXPORT_SUPPORT = 1 << 4;
        /// A WRITE may be larger than a page.
        const BIG_WRITES = 1 << 5;
        /// The driver leaves the umask to the server.
        const DONT_MASK = 1 << 6;
        /// `flock` locks are taken at the server.
        const FLOCK_LOCKS = 1 << 10;
        /// IOCTL works on directories.
        const HAS_IOCTL_DIR = 1 << 11;
        /// Cached pages go when modification time or size have changed.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS is served.
        const DO_READDIRPLUS = 1 << 13;
        /// The driver chooses between READDIR and READDIRPLUS.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be asynchronous.
        const ASYNC_DIO = 1 << 15;
        /// The driver collects writes and sends them later.
        const WRITEBACK_CACHE = 1 << 16;
        /// OPEN may be answered with ENOSYS for good.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// LOOKUP and READDIR of one directory may run side by side.
        const PARALLEL_DIROPS = 1 << 18;
        /// The server clears set-ID bits on each write, truncation and change of owner.
        const HANDLE_KILLPRIV = 1 << 19;
        /// POSIX access control lists are extended attributes that the driver may interpret.
        const POSIX_ACL = 1 << 20;
        /// `max_pages` in the reply is valid.
        const MAX_PAGES = 1 << 22;
        /// Targets of symbolic links may be cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// OPENDIR may be answered with ENOSYS for good.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Cached pages go only when told.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// `map_alignment` in the reply is valid.
        const MAP_ALIGNMENT = 1 << 26;
        /// Attributes may mark the root of another mount.
        const SUBMOUNTS = 1 << 27;
        /// The server clears set-ID bits when the request says so, and on each change of owner.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has the long form of its arguments.
        const SETXATTR_EXT = 1 << 29;
        /// INIT has `flags2`.
        const INIT_EXT = 1 << 30;
        /// Creating requests carry a security context.
        const SECURITY_CTX = 1 << 32;
        /// DAX can be chosen for each inode.
        const HAS_INODE_DAX = 1 << 33;
        /// Creating requests carry a supplementary group.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// Entries can be marked as expired.
        const HAS_EXPIRE_ONLY = 1 << 35;
        /// Shared mappings work with direct I/O.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Files may be passed through to a backing file.
        const PASSTHROUGH = 1 << 37;
        /// Node IDs may change their meaning over time, so handles are refused.
        const NO_EXPORT_SUPPORT = 1 << 38;
        /// Requests may be sent again.
        const HAS_RESEND = 1 << 39;
        /// Mounts may map user and group IDs.
        const ALLOW_IDMAP = 1 << 40;
        const _ = !0;
    }

    /// Which fields of SETATTR are meant.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SetattrValid: u32 {
        /// Permission bits.
        const MODE = 1 << 0;
        /// Owner.
        const UID = 1 << 1;
        /// Group.
        const GID = 1 << 2;
        /// Size.
        const SIZE = 1 << 3;
        /// Access time.
        const ATIME = 1 << 4;
        /// Modification time.
        const MTIME = 1 << 5;
        /// `fh` names an open file.
        const FH = 1 << 6;
        /// Access time is the server's present.
        const ATIME_NOW = 1 << 7;
        /// Modification time is the server's present.
        const MTIME_NOW = 1 << 8;
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 9;
        /// Change time; no passthrough can set it.
        const CTIME = 1 << 10;
        /// Clear set-ID bits with the truncation.
        const KILL_SUIDGID = 1 << 11;
        const _ = !0;
    }

    /// `open_flags` of OPEN and CREATE requests.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenInFlags: u32 {
        /// Clear set-ID bits with the truncation.
        const KILL_SUIDGID = 1 << 0;
        const _ = !0;
    }

    /// `open_flags` of OPEN, OPENDIR and CREATE replies.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenOutFlags: u32 {
        /// Bypass the driver's page cache.
        const DIRECT_IO = 1 << 0;
        /// Keep cached pages.
        const KEEP_CACHE = 1 << 1;
        /// There is no seeking.
        const NONSEEKABLE = 1 << 2;
        /// The directory's entries may be cached.
        const CACHE_DIR = 1 << 3;
        /// There is no file position.
        const STREAM = 1 << 4;
        /// No FLUSH at close.
        const NOFLUSH = 1 << 5;
        /// Direct writes of one inode may run side by side.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
    }

    /// `write_flags` of WRITE.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WriteFlags: u32 {
        /// Delayed write from the driver's cache; the handle is a guess.
        const CACHE = 1 << 0;
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 1;
        /// Clear set-ID bits.
        const KILL_SUIDGID = 1 << 2;
        const _ = !0;
    }

    /// `getattr_flags` of GETATTR and STATX.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct GetattrFlags: u32 {
        /// `fh` names an open file.
        const FH = 1 << 0;
        const _ = !0;
    }

    /// `fsync_flags` of FSYNC and FSYNCDIR.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FsyncFlags: u32 {
        /// Data, and of the metadata only what is needed to read it.
        const DATASYNC = 1 << 0;
        const _ = !0;
    }

    /// `release_flags` of RELEASE.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReleaseFlags: u32 {
        /// Do what FLUSH does as well.
        const FLUSH = 1 << 0;
        /// Drop the `flock` lock.
        const FLOCK_UNLOCK = 1 << 1;
        const _ = !0;
    }

    /// `lk_flags` of GETLK, SETLK and SETLKW.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct LockFlags: u32 {
        /// It is a `flock` lock.
        const FLOCK = 1 << 0;
        const _ = !0;
    }
}
