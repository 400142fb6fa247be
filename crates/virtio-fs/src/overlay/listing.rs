//! Listing a folder that has both.

use std::ffi::CString;

use fuse_wire::Name;

use super::Overlay;
use super::tree::{self, Index};
use crate::errno::{Errno, Result};
use crate::{DirEntry, DirSink, Entry, FileKind, FileSystem, Handle, NodeId};

/// What a virtual folder has before its children.
const DOTS: [&[u8]; 2] = [b".", b".."];

/// Offsets of virtual entries, where no file system has any: hashes reach here by chance of 2^-51, and the end of a
/// folder is 2^63 - 1 on some.
const FIRST_OFFSET: u64 = 0x7fff_ffff_ffff_f000;

/// How many of `count` virtual entries come before `offset`; `None` where it is one of the file system underneath. On ext4 the
/// largest number there is comes with the last entry.
fn virtual_done(offset: u64, count: usize) -> Option<usize> {
    let done = offset.checked_sub(FIRST_OFFSET)?;
    usize::try_from(done).ok().filter(|done| *done <= count)
}

/// What the tree has in a folder.
struct Child {
    name: Vec<u8>,
    hidden: bool,
    /// The guest knows the virtual one, and is to see no other.
    held: bool,
    index: Index,
    entry: Entry,
}

impl Child {
    fn dirent(&self, offset: u64) -> DirEntry<'_> {
        DirEntry {
            ino: self.entry.attr.ino,
            offset,
            kind: Some(self.entry.attr.kind()),
            name: &self.name,
        }
    }
}

/// Stands between the file system underneath and the guest's buffer.
struct Filter<'a> {
    sink: &'a mut dyn DirSink,
    /// Names that the tree has too.
    known: &'a [Child],
    /// What the guest now knows of the file system underneath, and of the tree.
    shown: Vec<(Entry, Index)>,
    given: Vec<Index>,
    /// What the guest does not know though it was looked up.
    kept_back: Vec<NodeId>,
    refused: bool,
}

impl<'a> Filter<'a> {
    fn new(sink: &'a mut dyn DirSink, known: &'a [Child]) -> Self {
        Self {
            sink,
            known,
            shown: Vec::new(),
            given: Vec::new(),
            kept_back: Vec::new(),
            refused: false,
        }
    }

    /// Lists the virtual one in the place of the host's.
    fn push_held(&mut self, child: &Child, offset: u64, entry: Option<&Entry>) -> bool {
        let pushed = self.sink.push(&child.dirent(offset), Some(&child.entry));
        if pushed {
            self.given.push(child.index);
            self.kept_back.extend(entry.map(|entry| entry.node));
        }
        pushed
    }
}

impl DirSink for Filter<'_> {
    fn fits(&self, name_len: usize) -> bool {
        self.sink.fits(name_len)
    }

    fn push(&mut self, dirent: &DirEntry<'_>, entry: Option<&Entry>) -> bool {
        let known = self.known.iter().find(|child| child.name == dirent.name);
        let pushed = match (known, entry) {
            (Some(child), _) if child.hidden => {
                self.kept_back.extend(entry.map(|entry| entry.node));
                return true;
            }
            (Some(child), _) if child.held => self.push_held(child, dirent.offset, entry),
            (Some(child), Some(shown)) => {
                let pushed = self.sink.push(dirent, entry);
                self.shown.extend(pushed.then_some((*shown, child.index)));
                pushed
            }
            _ => self.sink.push(dirent, entry),
        };
        self.refused |= !pushed;
        pushed
    }
}

impl<F: FileSystem> Overlay<F> {
    pub(super) fn list(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        if let Some(folder) = tree::index(node.0) {
            return self.list_virtual(folder, offset, plus, sink);
        }
        let Some(folder) = self.anchor(node) else {
            return self.list_inner(node, handle, offset, plus, sink);
        };
        let known = self.children(folder);
        let done = virtual_done(offset, known.len());
        if done.is_none() && !self.list_filtered(node, handle, offset, plus, &known, sink)? {
            return Ok(());
        }
        self.list_missing(node, done.unwrap_or(0), plus, &known, sink);
        Ok(())
    }

    /// What is underneath, without what the guest is not to see of it. False when not all of it fitted.
    fn list_filtered(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        known: &[Child],
        sink: &mut dyn DirSink,
    ) -> Result<bool> {
        let mut filter = Filter::new(sink, known);
        let listed = self.list_inner(node, handle, offset, plus, &mut filter);
        let Filter {
            shown,
            given,
            kept_back,
            refused,
            ..
        } = filter;
        for (entry, index) in shown {
            self.looked_up(&entry, index);
        }
        for index in given.into_iter().filter(|_| plus) {
            self.hold(index);
        }
        for node in kept_back {
            self.inner.forget(node, 1);
        }
        listed.map(|()| !refused)
    }

    fn list_inner(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        match plus {
            true => self.inner.readdirplus(node, handle, offset, sink),
            false => self.inner.readdir(node, handle, offset, sink),
        }
    }

    fn children(&self, folder: Index) -> Vec<Child> {
        let children = self.tree.get(folder).map_or(&[][..], |node| &node.children);
        let child = |index: &Index| {
            let node = self.tree.get(*index)?;
            Some(Child {
                name: node.name.clone(),
                hidden: node.hidden,
                held: self.is_held(*index),
                index: *index,
                entry: self.tree.entry(*index)?,
            })
        };
        children.iter().filter_map(child).collect()
    }

    /// Mount points that the host does not have, after all that it has, without the first `done`.
    fn list_missing(&mut self, node: NodeId, done: usize, plus: bool, known: &[Child], sink: &mut dyn DirSink) {
        for (number, child) in known.iter().enumerate().skip(done) {
            if child.hidden || self.host_has(node, &child.name) {
                continue;
            }
            if !self.push_virtual(child, FIRST_OFFSET + number as u64 + 1, plus, sink) {
                break;
            }
        }
    }

    fn push_virtual(&mut self, child: &Child, offset: u64, plus: bool, sink: &mut dyn DirSink) -> bool {
        let pushed = sink.push(&child.dirent(offset), Some(&child.entry));
        if pushed && plus {
            self.hold(child.index);
        }
        pushed
    }

    /// Whatever else is wrong with it, it is listed by its name: a FUSE mount whose server has died, or what is out of reach.
    fn host_has(&mut self, folder: NodeId, name: &[u8]) -> bool {
        let Ok(name) = CString::new(name) else { return false };
        let Ok(name) = Name::new(&name) else { return false };
        match self.inner.lookup(folder, name) {
            Ok(entry) => {
                self.inner.forget(entry.node, 1);
                true
            }
            Err(errno) => !matches!(errno, Errno::ENOENT | Errno::ENOTDIR),
        }
    }

    fn list_virtual(&mut self, folder: Index, offset: u64, plus: bool, sink: &mut dyn DirSink) -> Result<()> {
        let ino = self.tree.attr(folder).ok_or(Errno::ESTALE)?.ino;
        let done = usize::try_from(offset).unwrap_or(usize::MAX);
        for (number, name) in DOTS.into_iter().enumerate().skip(done) {
            let dirent = DirEntry {
                ino,
                offset: number as u64 + 1,
                kind: Some(FileKind::Directory),
                name,
            };
            if !sink.push(&dirent, None) {
                return Ok(());
            }
        }
        let children = self.children(folder);
        for (number, child) in children.iter().enumerate().skip(done.saturating_sub(DOTS.len())) {
            let offset = (DOTS.len() + number) as u64 + 1;
            if !self.push_virtual(child, offset, plus, sink) {
                break;
            }
        }
        Ok(())
    }
}
