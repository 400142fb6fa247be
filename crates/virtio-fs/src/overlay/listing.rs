//! Listing a folder that has both.

use std::ffi::CString;

use fuse_wire::Name;

use super::Overlay;
use super::tree::{self, Index};
use crate::errno::{Errno, Result};
use crate::numbered::push_numbered;
use crate::{DirEntry, DirSink, Entry, FileSystem, Handle, NodeId};

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
    index: Index,
}

/// Stands between the file system underneath and the guest's buffer.
struct Filter<'a> {
    sink: &'a mut dyn DirSink,
    /// Names that the tree has too.
    known: &'a [Child],
    /// What the guest now knows, and what it does not though it was looked up.
    shown: Vec<(Entry, Index)>,
    hidden: Vec<NodeId>,
    refused: bool,
}

impl DirSink for Filter<'_> {
    fn fits(&self, name_len: usize) -> bool {
        self.sink.fits(name_len)
    }

    fn push(&mut self, dirent: &DirEntry<'_>, entry: Option<&Entry>) -> bool {
        let known = self.known.iter().find(|child| child.name == dirent.name);
        if known.is_some_and(|child| child.hidden) {
            self.hidden.extend(entry.map(|entry| entry.node));
            return true;
        }
        let pushed = self.sink.push(dirent, entry);
        if let (true, Some(entry), Some(child)) = (pushed, entry, known) {
            self.shown.push((*entry, child.index));
        }
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
            return self.list_virtual(folder, offset, sink);
        }
        let Some(folder) = self.anchor(node) else {
            return self.list_inner(node, handle, offset, plus, sink);
        };
        let known = self.children(folder);
        let done = virtual_done(offset, known.len());
        if done.is_none() && !self.list_filtered(node, handle, offset, plus, &known, sink)? {
            return Ok(());
        }
        self.list_missing(node, done.unwrap_or(0), &known, sink)
    }

    /// What is underneath, without what is hidden there. False when not all of it fitted.
    fn list_filtered(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        known: &[Child],
        sink: &mut dyn DirSink,
    ) -> Result<bool> {
        let mut filter = Filter {
            sink,
            known,
            shown: Vec::new(),
            hidden: Vec::new(),
            refused: false,
        };
        let listed = self.list_inner(node, handle, offset, plus, &mut filter);
        let Filter {
            shown, hidden, refused, ..
        } = filter;
        for (entry, index) in shown {
            self.looked_up(&entry, index);
        }
        for node in hidden {
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
                index: *index,
            })
        };
        children.iter().filter_map(child).collect()
    }

    /// Mount points that the host does not have, after all that it has, without the first `done`.
    fn list_missing(&mut self, node: NodeId, done: usize, known: &[Child], sink: &mut dyn DirSink) -> Result<()> {
        for (number, child) in known.iter().enumerate().skip(done) {
            if child.hidden || self.host_has(node, &child.name)? {
                continue;
            }
            let entry = self.tree.entry(child.index).ok_or(Errno::EIO)?;
            let offset = FIRST_OFFSET + number as u64 + 1;
            let dirent = DirEntry {
                ino: entry.attr.ino,
                offset,
                kind: Some(entry.attr.kind()),
                name: &child.name,
            };
            if !sink.push(&dirent, Some(&entry)) {
                break;
            }
        }
        Ok(())
    }

    fn host_has(&mut self, folder: NodeId, name: &[u8]) -> Result<bool> {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let name = Name::new(&name).map_err(|_| Errno::EINVAL)?;
        match self.inner.lookup(folder, name) {
            Ok(entry) => {
                self.inner.forget(entry.node, 1);
                Ok(true)
            }
            Err(Errno::ENOENT) => Ok(false),
            // It is there, and listed by its name, though nothing of it can be reached.
            Err(Errno::EACCES) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    fn list_virtual(&mut self, folder: Index, offset: u64, sink: &mut dyn DirSink) -> Result<()> {
        let here = self.tree.entry(folder).ok_or(Errno::ESTALE)?;
        let dots = [(b"." as &[u8], here, false), (b"..", here, false)];
        let children = self.children(folder);
        let children = children
            .iter()
            .filter_map(|child| Some((child.name.as_slice(), self.tree.entry(child.index)?, true)));
        push_numbered(dots.into_iter().chain(children), offset, sink, |listed, offset| {
            let (name, entry, counts) = listed;
            let dirent = DirEntry {
                ino: entry.attr.ino,
                offset,
                kind: Some(entry.attr.kind()),
                name,
            };
            (dirent, counts.then_some(entry))
        });
        Ok(())
    }
}
