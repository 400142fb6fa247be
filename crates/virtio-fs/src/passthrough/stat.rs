//! What the host says about an inode.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp};

use crate::errno::Result;
use crate::{Attr, FileKind, Timestamp};

/// What makes an inode the same one. Two mounts of one file system are two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) device: (u32, u32),
    pub(super) mount: u64,
    pub(super) ino: u64,
}

impl Key {
    /// Whether two inodes are on one mount. A kernel before 5.8 does not tell; there a device counts as a mount.
    pub(super) fn is_on_mount_of(&self, other: &Self) -> bool {
        match (self.mount, other.mount) {
            (0, _) | (_, 0) => self.device == other.device,
            (mount, of_other) => mount == of_other,
        }
    }
}

/// Attributes, and what identifies the inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) key: Key,
    pub(super) attr: Attr,
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

impl Stat {
    /// Of what a descriptor stands for.
    #[inline]
    pub(super) fn of(fd: impl AsFd) -> Result<Self> {
        Ok(Self::from_statx(&rustix::fs::statx(
            fd,
            c"",
            AtFlags::EMPTY_PATH,
            WANTED,
        )?))
    }

    /// Of a name in a folder, symbolic links as they are. `name` has one component.
    #[inline]
    pub(super) fn at(folder: impl AsFd, name: &CStr) -> Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Self::from_statx(&rustix::fs::statx(folder, name, flags, WANTED)?))
    }

    #[inline]
    fn from_statx(statx: &Statx) -> Self {
        let key = Key {
            device: (statx.stx_dev_major, statx.stx_dev_minor),
            mount: if has(statx, StatxFlags::MNT_ID) {
                statx.stx_mnt_id
            } else {
                0
            },
            ino: statx.stx_ino,
        };
        let attr = Attr {
            ino: statx.stx_ino,
            size: statx.stx_size,
            blocks: statx.stx_blocks,
            atime: timestamp(statx.stx_atime),
            mtime: timestamp(statx.stx_mtime),
            ctime: timestamp(statx.stx_ctime),
            btime: has(statx, StatxFlags::BTIME).then(|| timestamp(statx.stx_btime)),
            mode: statx.stx_mode.into(),
            nlink: statx.stx_nlink,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            rdev: (statx.stx_rdev_major, statx.stx_rdev_minor),
            blksize: statx.stx_blksize,
        };
        Self { key, attr }
    }

    pub(super) fn kind(&self) -> FileKind {
        self.attr.kind()
    }
}

fn has(statx: &Statx, flag: StatxFlags) -> bool {
    StatxFlags::from_bits_retain(statx.stx_mask).contains(flag)
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp {
        secs: time.tv_sec,
        nanos: time.tv_nsec,
    }
}
