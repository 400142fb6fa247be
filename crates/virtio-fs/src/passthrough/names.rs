//! Finding, removing and moving names.

use std::os::fd::{AsFd, OwnedFd};

use fuse_wire::Name;
use rustix::fs::{AtFlags, RenameFlags};

use super::Passthrough;
use super::nodes::Slot;
use super::stat::Stat;
use crate::errno::{Errno, Result};
use crate::sys::DescriptorPath;
use crate::{Attr, Entry, FileKind, NodeId};

impl Passthrough {
    pub(super) fn do_lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        let folder_slot = self.nodes.slot(parent)?;
        let folder = self.fd_at(folder_slot)?;
        let stat = self.look(folder_slot, &folder, name)?;
        self.entry(&stat, Some((folder_slot, name.to_bytes())))
    }

    /// Counts one lookup of what was seen.
    #[inline]
    pub(super) fn entry(&mut self, stat: &Stat, place: Option<(Slot, &[u8])>) -> Result<Entry> {
        if stat.attr.btime.is_none() {
            self.lose_if_stale(stat);
        }
        let slot = self.nodes.remember(stat, place)?;
        // It may have been in a folder before that the guest does not know any more.
        self.collect();
        Ok(Entry {
            node: self.nodes.id(slot),
            attr: self.tell(slot, stat),
        })
    }

    /// Attributes on their way to the guest.
    #[inline]
    pub(super) fn tell(&mut self, slot: Slot, stat: &Stat) -> Attr {
        self.nodes.told_size(slot, stat.attr.size);
        self.shown(stat)
    }

    /// Attributes as the guest sees them. It takes the share for one file system: inodes of other devices get numbers
    /// that do not meet those of the root's.
    #[inline]
    fn shown(&self, stat: &Stat) -> Attr {
        Attr {
            ino: self.shown_ino(stat.key.device, stat.key.ino),
            ..stat.attr
        }
    }

    #[inline]
    pub(super) fn shown_ino(&self, device: (u32, u32), ino: u64) -> u64 {
        if device == self.root_key.device {
            return ino;
        }
        let device = u64::from(device.0) << 20 ^ u64::from(device.1);
        ino ^ (device.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x7fff_ff00_0000_0000)
    }

    pub(super) fn do_unlink(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove_name(parent, name, AtFlags::empty())
    }

    pub(super) fn do_rmdir(&mut self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.remove_name(parent, name, AtFlags::REMOVEDIR)
    }

    fn remove_name(&mut self, parent: NodeId, name: Name<'_>, flags: AtFlags) -> Result<()> {
        let (folder_slot, folder) = self.folder_to_change(parent)?;
        let kept = self.keep_named(folder_slot, name.to_bytes());
        if let Err(error) = rustix::fs::unlinkat(&folder, name.as_c_str(), flags) {
            self.give_back(&kept);
            return Err(error.into());
        }
        self.nodes.unnamed(folder_slot, name.to_bytes());
        self.collect();
        Ok(())
    }

    pub(super) fn do_rename(
        &mut self,
        parent: NodeId,
        name: Name<'_>,
        new_parent: NodeId,
        new_name: Name<'_>,
        flags: u32,
    ) -> Result<()> {
        let flags = RenameFlags::from_bits_retain(flags);
        if flags.contains(RenameFlags::WHITEOUT) && !self.config.device_nodes {
            return Err(Errno::EINVAL);
        }
        let (from_slot, to_slot) = (self.nodes.slot(parent)?, self.nodes.slot(new_parent)?);
        let from = self.fd_at(from_slot)?;
        let to = self.fd_at(to_slot)?;
        // Both are on one file system, or it fails.
        self.changes(to_slot);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let (old, new) = ((from_slot, name.to_bytes()), (to_slot, new_name.to_bytes()));
        let replaced = (!exchange).then(|| self.keep_replaced(old, new));
        if let Err(error) = rustix::fs::renameat_with(&from, name.as_c_str(), &to, new_name.as_c_str(), flags) {
            replaced.iter().for_each(|kept| self.give_back(kept));
            return Err(error.into());
        }
        self.nodes.moved(old, new, exchange);
        self.collect();
        Ok(())
    }

    pub(super) fn do_link(&mut self, node: NodeId, new_parent: NodeId, new_name: Name<'_>) -> Result<Entry> {
        let folder_slot = self.nodes.slot(new_parent)?;
        let slot = self.nodes.slot(node)?;
        let fd = self.fd_at(slot)?;
        if !self.nodes.is_found(slot) {
            self.refuse_if_nodes_full()?;
        }
        let folder = self.fd_at(folder_slot)?;
        self.changes(folder_slot);
        self.link_fd(&fd, &folder, new_name)?;
        let stat = Stat::of(&fd)?;
        self.entry(&stat, Some((folder_slot, new_name.to_bytes())))
    }

    /// By way of /proc, as linking a descriptor directly takes CAP_DAC_READ_SEARCH.
    fn link_fd(&self, fd: &OwnedFd, folder: &OwnedFd, name: Name<'_>) -> Result<()> {
        let path = DescriptorPath::new(fd.as_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(&self.descriptors, path.name(), folder, name.as_c_str(), flags)?;
        Ok(())
    }

    pub(super) fn do_readlink(&mut self, node: NodeId, target: &mut Vec<u8>) -> Result<()> {
        let slot = self.nodes.slot(node)?;
        if self.kind(slot)? != FileKind::Symlink {
            return Err(Errno::EINVAL);
        }
        let (fd, _) = self.fd_once(slot)?;
        let text = rustix::fs::readlinkat(&fd, c"", std::mem::take(target))?;
        *target = text.into_bytes();
        Ok(())
    }
}
