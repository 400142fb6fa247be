//! Arguments of requests. Each is a view when it is borrowed from a message and a value when it is not.
//!
//! Field names are those of the kernel's header; sizes are asserted in the tests against the numbers of the protocol.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    FsyncFlags, GetattrFlags, InitFlags, LockFlags, Opcode, OpenInFlags, ReleaseFlags, SetattrValid, WriteFlags,
};

macro_rules! wire_structs {
    ($($(#[$meta:meta])* $vis:vis $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
            #[repr(C)]
            #[allow(missing_docs, reason = "fields are named by the protocol")]
            $vis struct $name { $($(#[$field_meta])* $vis $field: $ty),* }
        )*
    };
}
pub(crate) use wire_structs;

wire_structs! {
    /// Before the arguments of every request.
    pub HeaderIn {
        len: U32,
        opcode: U32,
        unique: U64,
        nodeid: U64,
        uid: U32,
        gid: U32,
        pid: U32,
        total_extlen: U16,
        padding: U16,
    }

    /// The part of INIT that every version has.
    pub InitIn { major: U32, minor: U32, max_readahead: U32, flags: U32 }

    /// FORGET
    pub ForgetIn { nlookup: U64 }

    /// One element of BATCH_FORGET
    pub ForgetOne { nodeid: U64, nlookup: U64 }

    /// GETATTR
    pub GetattrIn { getattr_flags: U32, dummy: U32, fh: U64 }

    /// SETATTR
    pub SetattrIn {
        valid: U32,
        padding: U32,
        fh: U64,
        size: U64,
        lock_owner: U64,
        atime: U64,
        mtime: U64,
        ctime: U64,
        atimensec: U32,
        mtimensec: U32,
        ctimensec: U32,
        mode: U32,
        unused4: U32,
        uid: U32,
        gid: U32,
        unused5: U32,
    }

    /// MKNOD
    pub MknodIn { mode: U32, rdev: U32, umask: U32, padding: U32 }

    /// MKDIR
    pub MkdirIn { mode: U32, umask: U32 }

    /// OPEN and OPENDIR
    pub OpenIn { flags: U32, open_flags: U32 }

    /// CREATE and TMPFILE
    pub CreateIn { flags: U32, mode: U32, umask: U32, open_flags: U32 }

    /// READ, READDIR and READDIRPLUS
    pub ReadIn { fh: U64, offset: U64, size: U32, read_flags: U32, lock_owner: U64, flags: U32, padding: U32 }

    /// WRITE
    pub WriteIn { fh: U64, offset: U64, size: U32, write_flags: U32, lock_owner: U64, flags: U32, padding: U32 }

    /// RELEASE and RELEASEDIR
    pub ReleaseIn { fh: U64, flags: U32, release_flags: U32, lock_owner: U64 }

    /// FLUSH
    pub FlushIn { fh: U64, unused: U32, padding: U32, lock_owner: U64 }

    /// FSYNC and FSYNCDIR
    pub FsyncIn { fh: U64, fsync_flags: U32, padding: U32 }

    /// A byte range and its lock
    pub FileLock { start: U64, end: U64, kind: U32, pid: U32 }

    /// GETLK, SETLK and SETLKW
    pub LkIn { fh: U64, owner: U64, lk: FileLock, lk_flags: U32, padding: U32 }

    /// ACCESS
    pub AccessIn { mask: U32, padding: U32 }

    /// IOCTL
    pub IoctlIn { fh: U64, flags: U32, cmd: U32, arg: U64, in_size: U32, out_size: U32 }

    /// FALLOCATE
    pub FallocateIn { fh: U64, offset: U64, length: U64, mode: U32, padding: U32 }

    /// LSEEK
    pub LseekIn { fh: U64, offset: U64, whence: U32, padding: U32 }

    /// COPY_FILE_RANGE
    pub CopyFileRangeIn { fh_in: U64, off_in: U64, nodeid_out: U64, fh_out: U64, off_out: U64, len: U64, flags: U64 }

    /// SETUPMAPPING
    pub SetupMappingIn { fh: U64, foffset: U64, len: U64, flags: U64, moffset: U64 }

    /// One element of REMOVEMAPPING
    pub RemoveMappingOne { moffset: U64, len: U64 }

    /// STATX
    pub StatxIn { getattr_flags: U32, reserved: U32, fh: U64, sx_flags: U32, sx_mask: U32 }

    /// Attributes of an inode, in replies
    pub Attr {
        ino: U64,
        size: U64,
        blocks: U64,
        atime: U64,
        mtime: U64,
        ctime: U64,
        atimensec: U32,
        mtimensec: U32,
        ctimensec: U32,
        mode: U32,
        nlink: U32,
        uid: U32,
        gid: U32,
        rdev: U32,
        blksize: U32,
        flags: U32,
    }

    /// The first words of RENAME2 after its node ID; RENAME has only that.
    pub(crate) Rename2In { newdir: U64, flags: U32, padding: U32 }

    /// The short form of SETXATTR's arguments, and the start of the long one
    pub(crate) SetxattrIn { size: U32, flags: U32 }

    /// What the long form adds
    pub(crate) SetxattrExt { setxattr_flags: U32, padding: U32 }

    /// GETXATTR and LISTXATTR
    pub(crate) GetxattrIn { size: U32, padding: U32 }

    /// BATCH_FORGET starts with a count and pads it to 8 bytes
    pub(crate) BatchForgetIn { count: U32, dummy: U32 }

    /// A single 64-bit word: LINK, RENAME, INTERRUPT
    pub(crate) Word { value: U64 }

    /// A single 32-bit word: REMOVEMAPPING's count
    pub(crate) HalfWord { value: U32 }
}

impl HeaderIn {
    /// Its length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The operation.
    #[must_use]
    #[inline]
    pub fn opcode(&self) -> Opcode {
        Opcode(self.opcode.get())
    }

    /// How many bytes at the end of the message are extensions, which come after the arguments.
    #[must_use]
    #[inline]
    pub fn extensions_len(&self) -> usize {
        usize::from(self.total_extlen.get()) * 8
    }
}

macro_rules! flag_getters {
    ($($name:ident.$getter:ident: $field:ident as $flags:ident),* $(,)?) => {
        $(
            impl $name {
                #[doc = concat!("`", stringify!($field), "` as flags.")]
                #[must_use]
                #[inline]
                pub fn $getter(&self) -> $flags {
                    $flags::from_bits_retain(self.$field.get())
                }
            }
        )*
    };
}

flag_getters! {
    SetattrIn.valid_fields: valid as SetattrValid,
    GetattrIn.flags: getattr_flags as GetattrFlags,
    StatxIn.flags: getattr_flags as GetattrFlags,
    OpenIn.fuse_flags: open_flags as OpenInFlags,
    CreateIn.fuse_flags: open_flags as OpenInFlags,
    WriteIn.fuse_flags: write_flags as WriteFlags,
    FsyncIn.flags: fsync_flags as FsyncFlags,
    ReleaseIn.fuse_flags: release_flags as ReleaseFlags,
    LkIn.flags: lk_flags as LockFlags,
}

impl InitIn {
    /// Both flag words in one; `flags2` counts only where INIT_EXT says that it is there.
    #[must_use]
    pub fn all_flags(&self, flags2: u32) -> InitFlags {
        let low = InitFlags::from_bits_retain(u64::from(self.flags.get()));
        if low.contains(InitFlags::INIT_EXT) {
            low | InitFlags::from_bits_retain(u64::from(flags2) << 32)
        } else {
            low
        }
    }
}
