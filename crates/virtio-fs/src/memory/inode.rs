//! What is at a node of a tree in memory.

use std::collections::BTreeMap;

use super::folder::Folder;
use crate::{Attr, FileKind, NodeId, Timestamp};

/// An extended attribute (xattr) takes about this many bytes besides its name and its value.
pub(super) const XATTR_COST: usize = 64;

#[derive(Debug)]
pub(super) enum Body {
    File(Vec<u8>),
    /// Apart, as it is larger than the rest.
    Folder(Box<Folder>),
    Link(Box<[u8]>),
    /// A pipe, a socket or a device node: there is nothing in it.
    Special(FileKind, (u32, u32)),
}

impl Body {
    /// An empty folder in `parent`.
    pub(super) fn folder(parent: NodeId) -> Self {
        Self::Folder(Box::new(Folder::new(parent)))
    }

    fn kind(&self) -> FileKind {
        match self {
            Self::File(_) => FileKind::Regular,
            Self::Folder(_) => FileKind::Directory,
            Self::Link(_) => FileKind::Symlink,
            Self::Special(kind, _) => *kind,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File(bytes) => bytes.len() as u64,
            Self::Link(target) => target.len() as u64,
            Self::Folder(folder) => folder.len() as u64,
            Self::Special(..) => 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) body: Body,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) btime: Timestamp,
    pub(super) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Lookups that the guest has not taken back, and open files.
    pub(super) uses: u64,
}

impl Inode {
    pub(super) fn attr(&self, node: NodeId) -> Attr {
        let size = self.body.len();
        let rdev = if let Body::Special(_, device) = self.body {
            device
        } else {
            (0, 0)
        };
        Attr {
            ino: node.0,
            size,
            blocks: size.div_ceil(512),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: Some(self.btime),
            mode: self.body.kind().mode() | self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev,
            blksize: 4096,
        }
    }

    /// Bytes that extended attributes take.
    pub(super) fn xattrs_len(&self) -> usize {
        self.xattrs
            .iter()
            .map(|(name, value)| XATTR_COST + name.len() + value.len())
            .sum()
    }

    pub(super) fn is_folder(&self) -> bool {
        matches!(self.body, Body::Folder(_))
    }
}
