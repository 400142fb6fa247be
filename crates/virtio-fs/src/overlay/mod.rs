//! Virtual files and folders over another file system.
//!
//! A guest needs files that its root does not have: an init, its configuration, folders to mount on. Here they exist
//! only in the device; nothing is made on the host, and a read-only root has them too.

mod back_end;
mod listing;
mod tree;

use std::collections::HashMap;

use crate::errno::{Errno, Result};
use crate::{Entry, FileKind, FileSystem, NodeId};
pub use tree::{Content, VirtualEntry};
use tree::{Index, Tree};

/// The init's ioctl on the root that tells the exit code, which is its argument.
pub const IOCTL_EXIT_CODE: u32 = 0x7602;

/// The init's ioctl on the root that tells why there is no exit code.
pub const IOCTL_NO_PROGRAM: u32 = 0x7610;

/// What the guest's init has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestReport {
    /// The program ended with this code.
    ExitCode(i32),
    /// There is no such program.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// The guest could not be set up for the program.
    SetUpFailed,
}

/// Why there is no such overlay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// The path is not absolute, has a name that no file can have, or meets another virtual file.
    #[error("no virtual file can be at {path:?}")]
    Path {
        /// The path in question.
        path: String,
    },
}

/// A file system with virtual files over it.
pub struct Overlay<F> {
    inner: F,
    tree: Tree,
    /// Folders underneath that have virtual files in them, and how often the guest looked them up.
    anchors: HashMap<NodeId, Anchor>,
    /// Virtual nodes that the guest knows, and how often it looked them up.
    held: HashMap<Index, u64>,
    report: Option<Box<dyn FnMut(GuestReport) + Send>>,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    index: Index,
    lookups: u64,
}

impl<F: FileSystem> Overlay<F> {
    /// Puts `entries` over `inner`. Their paths are absolute.
    ///
    /// # Errors
    /// When a path is none or two entries meet.
    pub fn new(inner: F, entries: Vec<VirtualEntry>) -> std::result::Result<Self, OverlayError> {
        Ok(Self {
            inner,
            tree: Tree::new(entries)?,
            anchors: HashMap::new(),
            held: HashMap::new(),
            report: None,
        })
    }

    /// Calls `report` with what process 1 of the guest tells by ioctl on the root.
    #[must_use]
    pub fn on_report(mut self, report: impl FnMut(GuestReport) + Send + 'static) -> Self {
        self.report = Some(Box::new(report));
        self
    }

    /// The file system underneath.
    pub fn inner(&self) -> &F {
        &self.inner
    }

    /// The place in the virtual tree of a folder underneath.
    fn anchor(&self, folder: NodeId) -> Option<Index> {
        match folder {
            NodeId::ROOT => Some(0),
            _ => self.anchors.get(&folder).map(|anchor| anchor.index),
        }
    }

    /// The virtual file with that name in a folder underneath.
    fn virtual_child(&self, folder: NodeId, name: &[u8]) -> Option<Index> {
        self.tree.child(self.anchor(folder)?, name)
    }

    fn is_hidden(&self, index: Index) -> bool {
        self.tree.get(index).is_some_and(|node| node.hidden)
    }

    fn goes_on(&self, index: Index) -> bool {
        self.tree.get(index).is_some_and(|node| !node.children.is_empty())
    }

    fn is_held(&self, index: Index) -> bool {
        self.held.contains_key(&index)
    }

    fn find(&mut self, parent: NodeId, name: fuse_wire::Name<'_>) -> Result<Entry> {
        if let Some(folder) = tree::index(parent.0) {
            let child = self.tree.child(folder, name.to_bytes()).ok_or(Errno::ENOENT)?;
            return self.give(child);
        }
        let Some(child) = self.virtual_child(parent, name.to_bytes()) else {
            return self.inner.lookup(parent, name);
        };
        // Another node for the name would take away what the guest has mounted there, whatever the host has by now.
        if self.is_hidden(child) || self.is_held(child) {
            return self.give(child);
        }
        match self.inner.lookup(parent, name) {
            Ok(entry) => {
                self.looked_up(&entry, child);
                Ok(entry)
            }
            // A pseudo file system of the host is out of reach; the guest mounts its own there.
            Err(Errno::ENOENT | Errno::EACCES) => self.give(child),
            Err(errno) => Err(errno),
        }
    }

    /// The answer to a lookup of what is virtual.
    fn give(&mut self, index: Index) -> Result<Entry> {
        let entry = self.tree.entry(index).ok_or(Errno::ENOENT)?;
        self.hold(index);
        Ok(entry)
    }

    fn hold(&mut self, index: Index) {
        let lookups = self.held.entry(index).or_default();
        *lookups = lookups.saturating_add(1);
    }

    fn let_go(&mut self, index: Index, count: u64) {
        if let Some(lookups) = self.held.get_mut(&index) {
            *lookups = lookups.saturating_sub(count);
            if *lookups == 0 {
                self.held.remove(&index);
            }
        }
    }

    /// The host has a folder where the tree goes on.
    fn looked_up(&mut self, entry: &Entry, index: Index) {
        if self.goes_on(index) && entry.attr.kind() == FileKind::Directory {
            let anchor = self.anchors.entry(entry.node).or_insert(Anchor { index, lookups: 0 });
            anchor.lookups = anchor.lookups.saturating_add(1);
        }
    }

    fn forgotten(&mut self, node: NodeId, count: u64) {
        if let Some(anchor) = self.anchors.get_mut(&node) {
            anchor.lookups = anchor.lookups.saturating_sub(count);
            if anchor.lookups == 0 {
                self.anchors.remove(&node);
            }
        }
    }

    /// Refuses to make anything in a virtual folder, or a name of the tree: to the guest those are all there.
    fn may_make(&self, parent: NodeId, name: fuse_wire::Name<'_>) -> Result<()> {
        if tree::index(parent.0).is_some() {
            return Err(Errno::EROFS);
        }
        match self.virtual_child(parent, name.to_bytes()) {
            Some(_) => Err(Errno::EEXIST),
            None => Ok(()),
        }
    }

    /// Refuses to remove, move or replace what is virtual, and with `occupied` a folder of the host in which that is.
    fn may_remove(&mut self, parent: NodeId, name: fuse_wire::Name<'_>, occupied: Errno) -> Result<()> {
        if tree::index(parent.0).is_some() {
            return Err(Errno::EROFS);
        }
        let Some(child) = self.virtual_child(parent, name.to_bytes()) else {
            return Ok(());
        };
        if self.is_hidden(child) || self.is_held(child) {
            return Err(Errno::EBUSY);
        }
        match self.inner.lookup(parent, name) {
            Ok(entry) => {
                self.inner.forget(entry.node, 1);
                let is_occupied = self.goes_on(child) && entry.attr.kind() == FileKind::Directory;
                if is_occupied { Err(occupied) } else { Ok(()) }
            }
            // As with a lookup: it is the virtual one that is there.
            Err(Errno::ENOENT | Errno::EACCES) => Err(Errno::EBUSY),
            Err(errno) => Err(errno),
        }
    }

    fn told(&mut self, command: u32, argument: u64) -> Result<i32> {
        let report = match (command, argument) {
            // The code travels as an int in a word of its own.
            (IOCTL_EXIT_CODE, code) => GuestReport::ExitCode(truncate(code)),
            (IOCTL_NO_PROGRAM, 1) => GuestReport::NotFound,
            (IOCTL_NO_PROGRAM, 2) => GuestReport::NotExecutable,
            (IOCTL_NO_PROGRAM, 3) => GuestReport::SetUpFailed,
            _ => return Err(Errno::EINVAL),
        };
        match &mut self.report {
            Some(tell) => tell(report),
            None => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "an int is what was put in")]
fn truncate(word: u64) -> i32 {
    word as i32
}
