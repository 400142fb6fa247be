//! Packs what a file system lists.

use std::time::Duration;

use fuse_wire::{DirentBuffer, EntryOut};

use crate::{DirEntry, DirSink, Entry};

pub(super) struct Listing<'a> {
    buffer: DirentBuffer<'a>,
    plus: Option<Validity>,
    refused: bool,
}

/// How long entries and attributes may be believed.
#[derive(Clone, Copy)]
pub(super) struct Validity {
    pub(super) entry: Duration,
    pub(super) attr: Duration,
}

impl<'a> Listing<'a> {
    /// With `plus` it is READDIRPLUS.
    pub(super) fn new(buf: &'a mut [u8], plus: Option<Validity>) -> Self {
        Self {
            buffer: DirentBuffer::new(buf),
            plus,
            refused: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// There is an entry, and the buffer is too small for even that one.
    pub(super) fn is_stuck(&self) -> bool {
        self.refused && self.is_empty()
    }
}

impl DirSink for Listing<'_> {
    fn fits(&self, name_len: usize) -> bool {
        self.buffer.fits(name_len, self.plus.is_some())
    }

    fn push(&mut self, dirent: &DirEntry<'_>, entry: Option<&Entry>) -> bool {
        let kind = dirent.kind.map_or(0, crate::FileKind::dirent_type);
        let entry = self.plus.map(|valid| match entry {
            Some(entry) => EntryOut::new(entry.node.0, 0, entry.attr.to_wire(), valid.entry, valid.attr),
            None => EntryOut::default(),
        });
        let pushed = self
            .buffer
            .push(entry.as_ref(), dirent.ino, dirent.offset, kind, dirent.name);
        self.refused |= !pushed;
        pushed
    }
}
