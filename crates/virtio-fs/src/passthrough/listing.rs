//! Listing folders.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::AsFd;

use fuse_wire::Name;
use rustix::fs::SeekFrom;

use super::Passthrough;
use super::nodes::{Node, Slot};
use crate::errno::{Errno, Result};
use crate::{DirEntry, DirSink, FileKind, Handle, NodeId, sys};

/// Room for entries of the host, in bytes: some 1,000 of them.
const BUFFER_LEN: usize = 32 << 10;

/// Folders that are listed at a time without looking at entries twice: as deep as `rm -r` goes down mostly. A guest that lists more
/// pays with system calls, not with our memory.
const MOST: usize = 32;

/// Buffers of folders, the one that was used last at the end.
///
/// What the host gave and the guest has not taken must not be asked for again if that can be helped: some file systems count entries
/// for offsets (`dcache_readdir` in Linux, tmpfs before 6.6), so that those of removed ones make others be left out.
#[derive(Debug, Default)]
pub(super) struct Listings {
    buffers: VecDeque<ListBuffer>,
}

impl Listings {
    /// The buffer of an open folder, or one for it.
    fn take(&mut self, handle: Handle) -> ListBuffer {
        let own = self.buffers.iter().position(|buffer| buffer.is_of(handle));
        let unused = || self.buffers.iter().position(|buffer| buffer.owner.is_none());
        let oldest = || (self.buffers.len() >= MOST).then_some(0);
        let found = own.or_else(unused).or_else(oldest);
        found.and_then(|index| self.buffers.remove(index)).unwrap_or_default()
    }

    fn put(&mut self, buffer: ListBuffer) {
        self.buffers.push_back(buffer);
    }

    /// The folder is closed.
    pub(super) fn forget(&mut self, handle: Handle) {
        let own = self.buffers.iter_mut().find(|buffer| buffer.is_of(handle));
        if let Some(buffer) = own {
            buffer.owner = None;
        }
    }
}

/// Entries that the host gave and the guest has not taken yet.
#[derive(Debug, Default)]
struct ListBuffer {
    bytes: Vec<u8>,
    /// Where the next entry is in `bytes`.
    at: usize,
    /// Whose entries these are, and the offset that continues at `at`.
    owner: Option<(Handle, u64)>,
}

/// `struct linux_dirent64` up to its name.
const NAME_OFFSET: usize = 19;

/// One entry as the host gives it.
#[derive(Clone, Copy)]
struct HostEntry<'a> {
    ino: u64,
    /// What continues after it.
    offset: u64,
    kind: u8,
    name: &'a CStr,
    len: usize,
}

impl ListBuffer {
    fn is_of(&self, handle: Handle) -> bool {
        self.owner.is_some_and(|(owner, _)| owner == handle)
    }

    fn entry(&self) -> Option<HostEntry<'_>> {
        let bytes = self.bytes.get(self.at..)?;
        let (ino, rest) = bytes.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let kind = *rest.first()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let name = CStr::from_bytes_until_nul(bytes.get(NAME_OFFSET..len)?).ok()?;
        let (ino, offset) = (u64::from_ne_bytes(*ino), u64::from_ne_bytes(*offset));
        Some(HostEntry {
            ino,
            offset,
            kind,
            name,
            len,
        })
    }
}

impl Passthrough {
    pub(super) fn do_readdir(
        &mut self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let slot = self.nodes.slot(node)?;
        if self.kind(slot)? != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        self.files.get(handle, slot)?;
        let mut list = self.listings.take(handle);
        let listed = self.list_from(slot, handle, offset, plus, sink, &mut list);
        if listed.is_err() {
            list.owner = None;
        }
        self.listings.put(list);
        listed
    }

    fn list_from(
        &mut self,
        slot: Slot,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirSink,
        list: &mut ListBuffer,
    ) -> Result<()> {
        // From the start on, a listing shows what is there now.
        if offset == 0 || list.owner != Some((handle, offset)) {
            self.fill(slot, handle, offset, list)?;
        }
        loop {
            let Some(entry) = list.entry() else {
                let at = list.owner.map_or(offset, |(_, at)| at);
                self.fill(slot, handle, at, list)?;
                if list.bytes.is_empty() {
                    return Ok(());
                }
                continue;
            };
            let (next, len) = (entry.offset, entry.len);
            if !self.push(slot, &entry, plus, sink)? {
                return Ok(());
            }
            list.at += len;
            list.owner = Some((handle, next));
        }
    }

    /// Gets entries from `offset` on.
    fn fill(&mut self, slot: Slot, handle: Handle, offset: u64, list: &mut ListBuffer) -> Result<()> {
        let file = self.files.get_mut(handle, slot)?;
        if file.position != offset || (offset == 0 && file.listed) {
            rustix::fs::seek(&file.fd, SeekFrom::Start(offset))?;
        }
        file.listed = true;
        list.owner = None;
        list.at = 0;
        list.bytes.resize(BUFFER_LEN, 0);
        let len = sys::getdents(file.fd.as_fd(), &mut list.bytes)?;
        list.bytes.truncate(len);
        file.position = last_offset(list).unwrap_or(offset);
        list.owner = Some((handle, offset));
        Ok(())
    }

    /// False when the entry does not fit.
    fn push(&mut self, slot: Slot, entry: &HostEntry<'_>, plus: bool, sink: &mut dyn DirSink) -> Result<bool> {
        let name = entry.name.to_bytes();
        if !sink.fits(name.len()) {
            // The sink is told all the same: it has to know that there is more.
            let folder = self.nodes.get(slot)?;
            return Ok(sink.push(&self.dirent(folder, entry), None));
        }
        let found = match Name::new(entry.name) {
            Ok(name) if plus => self.found(slot, name),
            _ => None,
        };
        let folder = self.nodes.get(slot)?;
        let mut dirent = self.dirent(folder, entry);
        if let Some(found) = &found {
            dirent.ino = found.attr.ino;
        }
        let pushed = sink.push(&dirent, found.as_ref());
        if let Some(found) = found.filter(|_| !pushed) {
            self.forget_node(found.node, 1);
        }
        Ok(pushed)
    }

    /// What is behind a listed name, if it is still there and there is room for it: the guest can look it up later.
    fn found(&mut self, slot: Slot, name: Name<'_>) -> Option<crate::Entry> {
        let folder = self.fd_at(slot).ok()?;
        let stat = self.look(slot, &folder, name).ok()?;
        self.entry(&stat, Some((slot, name.to_bytes()))).ok()
    }

    fn dirent<'a>(&self, folder: &Node, entry: &HostEntry<'a>) -> DirEntry<'a> {
        let ino = if entry.name == c".." {
            self.ino_above(folder)
        } else {
            self.shown_ino(folder.key.device, entry.ino)
        };
        let kind = FileKind::from_mode(u32::from(entry.kind) << 12);
        DirEntry {
            ino,
            offset: entry.offset,
            kind,
            name: entry.name.to_bytes(),
        }
    }

    /// What is above the root is none of the guest's business, and above a mount the host tells of the mount itself.
    fn ino_above(&self, folder: &Node) -> u64 {
        let above = folder.parent().and_then(|slot| self.nodes.get(slot).ok());
        let key = above.map_or(self.root_key, |above| above.key);
        self.shown_ino(key.device, key.ino)
    }
}

fn last_offset(list: &ListBuffer) -> Option<u64> {
    let mut at = 0;
    let mut last = None;
    while let Some(bytes) = list.bytes.get(at..) {
        let Some(offset) = bytes.get(8..16).and_then(|bytes| bytes.first_chunk::<8>()) else {
            break;
        };
        let Some(len) = bytes.get(16..18).and_then(|bytes| bytes.first_chunk::<2>()) else {
            break;
        };
        last = Some(u64::from_ne_bytes(*offset));
        at += usize::from(u16::from_ne_bytes(*len)).max(1);
    }
    last
}
