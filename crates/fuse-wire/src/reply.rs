//! Structs of replies, and how durations and errors become wire fields.

use std::time::Duration;

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::structs::wire_structs;
use crate::{Attr, FileLock, OpenOutFlags};

wire_structs! {
    /// Before every reply.
    pub HeaderOut { len: U32, error: I32, unique: U64 }

    /// LOOKUP, MKNOD, MKDIR, SYMLINK and LINK; the first part of CREATE and TMPFILE
    pub EntryOut {
        nodeid: U64,
        generation: U64,
        entry_valid: U64,
        attr_valid: U64,
        entry_valid_nsec: U32,
        attr_valid_nsec: U32,
        attr: Attr,
    }

    /// GETATTR and SETATTR
    pub AttrOut { attr_valid: U64, attr_valid_nsec: U32, dummy: U32, attr: Attr }

    /// OPEN and OPENDIR; the second part of CREATE and TMPFILE
    pub OpenOut { fh: U64, open_flags: U32, backing_id: U32 }

    /// WRITE and COPY_FILE_RANGE
    pub SizeOut { size: U32, padding: U32 }

    /// GETXATTR and LISTXATTR of size 0
    pub XattrSizeOut { size: U32, padding: U32 }

    /// STATFS
    pub KStatfs {
        blocks: U64,
        bfree: U64,
        bavail: U64,
        files: U64,
        ffree: U64,
        bsize: U32,
        namelen: U32,
        frsize: U32,
        padding: U32,
        spare: [U32; 6],
    }

    /// GETLK
    pub LkOut { lk: FileLock }

    /// INIT from 7.23 on
    pub InitOut {
        major: U32,
        minor: U32,
        max_readahead: U32,
        flags: U32,
        max_background: U16,
        congestion_threshold: U16,
        max_write: U32,
        time_gran: U32,
        max_pages: U16,
        map_alignment: U16,
        flags2: U32,
        max_stack_depth: U32,
        unused: [U32; 6],
    }

    /// IOCTL
    pub IoctlOut { result: I32, flags: U32, in_iovs: U32, out_iovs: U32 }

    /// LSEEK
    pub LseekOut { offset: U64 }

    /// A time in STATX replies
    pub WireTime { tv_sec: I64, tv_nsec: U32, reserved: I32 }

    /// Attributes in STATX replies
    pub WireStatx {
        mask: U32,
        blksize: U32,
        attributes: U64,
        nlink: U32,
        uid: U32,
        gid: U32,
        mode: U16,
        spare0: U16,
        ino: U64,
        size: U64,
        blocks: U64,
        attributes_mask: U64,
        atime: WireTime,
        btime: WireTime,
        ctime: WireTime,
        mtime: WireTime,
        rdev_major: U32,
        rdev_minor: U32,
        dev_major: U32,
        dev_minor: U32,
        spare2: [U64; 14],
    }

    /// STATX
    pub StatxOut { attr_valid: U64, attr_valid_nsec: U32, flags: U32, spare: [U64; 2], stat: WireStatx }
}

impl HeaderOut {
    /// Its length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// A reply with `payload_len` bytes after the header.
    #[must_use]
    #[inline]
    pub fn success(unique: u64, payload_len: usize) -> Self {
        let len = u32::try_from(Self::LEN.saturating_add(payload_len)).unwrap_or(u32::MAX);
        Self {
            len: len.into(),
            error: 0.into(),
            unique: unique.into(),
        }
    }

    /// A refusal. `errno` is positive; what is not an error number of Linux becomes EIO, as the driver would take the
    /// reply for garbage.
    #[must_use]
    #[inline]
    pub fn failure(unique: u64, errno: i32) -> Self {
        const EIO: i32 = 5;
        let errno = if (1..=511).contains(&errno) { errno } else { EIO };
        Self {
            error: (-errno).into(),
            ..Self::success(unique, 0)
        }
    }
}

impl EntryOut {
    /// An entry and for how long its name and its attributes may be believed.
    #[must_use]
    #[inline]
    pub fn new(nodeid: u64, generation: u64, attr: Attr, entry_valid: Duration, attr_valid: Duration) -> Self {
        Self {
            nodeid: nodeid.into(),
            generation: generation.into(),
            entry_valid: entry_valid.as_secs().into(),
            attr_valid: attr_valid.as_secs().into(),
            entry_valid_nsec: entry_valid.subsec_nanos().into(),
            attr_valid_nsec: attr_valid.subsec_nanos().into(),
            attr,
        }
    }

    /// There is no such name, and that may be believed for `valid`.
    #[must_use]
    #[inline]
    pub fn negative(valid: Duration) -> Self {
        Self::new(0, 0, Attr::default(), valid, Duration::ZERO)
    }
}

impl AttrOut {
    /// Attributes and for how long they may be believed.
    #[must_use]
    #[inline]
    pub fn new(attr: Attr, valid: Duration) -> Self {
        Self {
            attr_valid: valid.as_secs().into(),
            attr_valid_nsec: valid.subsec_nanos().into(),
            dummy: 0.into(),
            attr,
        }
    }
}

impl OpenOut {
    /// An open file.
    #[must_use]
    #[inline]
    pub fn new(fh: u64, flags: OpenOutFlags) -> Self {
        Self {
            fh: fh.into(),
            open_flags: flags.bits().into(),
            backing_id: 0.into(),
        }
    }
}
