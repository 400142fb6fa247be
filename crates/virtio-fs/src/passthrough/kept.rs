//! Descriptors for what loses its name while the guest uses it.
//!
//! Linux sends no OPEN for pipes, sockets and devices, which it serves itself, nor for O_PATH and working folders. When such
//! an inode has no name any more nothing but a descriptor leads to it. It is kept until the guest forgets the inode, or finds
//! it under another name. A regular file is kept only where that takes no system call: who uses it has it open, but
//! for O_PATH.

use super::Passthrough;
use super::nodes::Slot;
use crate::FileKind;
use crate::errno::Result;

/// The part of the open files that a guest may have that descriptors are kept from.
const PART: usize = 4;

/// What was kept before a name goes, to be given back when it stays.
#[must_use]
#[derive(Debug)]
pub(super) struct Kept(Option<Slot>);

impl Passthrough {
    /// To be called before a name goes. Without a descriptor the guest gets ESTALE later, which is not a reason to keep the
    /// name.
    pub(super) fn keep_named(&mut self, folder: Slot, name: &[u8]) -> Kept {
        let Some(slot) = self.nodes.child(folder, name) else {
            return Kept(None);
        };
        match self.keep(slot) {
            Ok(true) => Kept(Some(slot)),
            Ok(false) | Err(_) => Kept(None),
        }
    }

    /// The name has stayed.
    pub(super) fn give_back(&mut self, kept: &Kept) {
        if let Some(slot) = kept.0 {
            self.nodes.give_back(slot);
        }
    }

    /// Before one name takes the place of another.
    pub(super) fn keep_replaced(&mut self, from: (Slot, &[u8]), to: (Slot, &[u8])) -> Kept {
        let moved = self.nodes.child(from.0, from.1);
        if moved.is_some() && moved == self.nodes.child(to.0, to.1) {
            return Kept(None);
        }
        self.keep_named(to.0, to.1)
    }

    /// Whether there is a descriptor now that was not kept before.
    fn keep(&mut self, slot: Slot) -> Result<bool> {
        let node = self.nodes.get(slot)?;
        if node.kept.is_some() || (node.kind == FileKind::Regular && node.cached.is_none()) {
            return Ok(false);
        }
        if self.files.is_full(&self.nodes) || self.nodes.kept() >= self.config.max_open_files / PART {
            // As good as it gets: in time it makes room for others.
            return self.fd_at(slot).map(|_| false);
        }
        let (fd, _) = self.fd_once(slot)?;
        self.nodes.keep(slot, fd);
        Ok(true)
    }
}
