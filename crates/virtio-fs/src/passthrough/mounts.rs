//! File systems that are mounted beneath the share.
//!
//! What is mounted there belongs to the share, unless its files are the host's kernel speaking: `/proc/PID/mem` is a
//! regular file, and names with RESOLVE_BENEATH lead to it.

use std::os::fd::OwnedFd;

use fuse_wire::Name;
use rustix::fs::{FsWord, Mode};

use super::Passthrough;
use super::nodes::Slot;
use super::resolve::PATH_ONLY;
use super::stat::Stat;
use crate::errno::{Errno, Result};

/// `f_type` of `statfs(2)`, as in Linux's `magic.h` and, for two, in the sources of the file system.
const OF_THE_KERNEL: [FsWord; 17] = [
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6265_6570, // configfs
    0x4249_4e4d, // binfmt_misc
    0xde5e_81e4, // efivarfs
    0xcafe_4a11, // bpf
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x6573_5543, // fusectl
    0x6165_676c, // pstore
    0x6e73_6673, // nsfs
    0x0765_5821, // resctrl
];

const OVERLAYFS: FsWord = 0x794c_7630;

impl Passthrough {
    /// Attributes of a name in a folder, symbolic links as they are.
    ///
    /// # Errors
    /// EACCES for the root of a pseudo file system, and so for all that is in it.
    #[inline]
    pub(super) fn look(&mut self, folder: Slot, fd: &OwnedFd, name: Name<'_>) -> Result<Stat> {
        let stat = Stat::at(fd, name.as_c_str())?;
        if self.nodes.get(folder)?.key.is_on_mount_of(&stat.key) {
            Ok(stat)
        } else {
            self.look_at_mount(fd, name)
        }
    }

    #[cold]
    fn look_at_mount(&mut self, fd: &OwnedFd, name: Name<'_>) -> Result<Stat> {
        let mounted = self.opening(|this| this.open_beneath(fd, name.as_c_str(), PATH_ONLY, Mode::empty()))?;
        let kind = rustix::fs::fstatfs(&mounted)?.f_type;
        if OF_THE_KERNEL.contains(&kind) {
            return Err(Errno::EACCES);
        }
        let stat = Stat::of(&mounted)?;
        self.nodes.set_reborn(&stat, kind == OVERLAYFS);
        Ok(stat)
    }
}

/// Whether a descriptor is of a mount where inodes are born again; see `Nodes`.
pub(super) fn is_reborn_on(root: &OwnedFd) -> bool {
    rustix::fs::fstatfs(root).is_ok_and(|of| of.f_type == OVERLAYFS)
}
