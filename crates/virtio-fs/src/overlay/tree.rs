//! The virtual part: a small tree that is built once.

use std::sync::Arc;

use fuse_wire::Name;

use super::OverlayError;
use crate::{Attr, Entry, FileKind, NodeId};

/// Node IDs and handles of virtual files have this bit, which no other back-end here uses.
const VIRTUAL: u64 = 1 << 63;

/// Inode numbers of virtual files start here, far from those of any file system.
const FIRST_INO: u64 = 0x7e55_e7a0_0000_0000;

/// Permissions of a file that only marks a place.
const EMPTY_FILE_MODE: u32 = 0o644;

/// What a virtual file holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes that are there for the whole run of the process.
    Static(&'static [u8]),
    /// Bytes that are shared with others.
    Shared(Arc<[u8]>),
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl From<&'static [u8]> for Content {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl From<Arc<[u8]>> for Content {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Shared(bytes.into())
    }
}

/// A file or folder that the host does not have.
#[derive(Clone, Debug)]
pub struct VirtualEntry {
    pub(super) path: String,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Folder,
    EmptyFile,
    File { mode: u32, content: Content },
}

impl VirtualEntry {
    /// A file that can be read and, if `mode` says so, executed. It hides what the host has in its place, itself and
    /// the folders that lead to it are not listed.
    #[must_use]
    pub fn file(path: impl Into<String>, mode: u32, content: impl Into<Content>) -> Self {
        Self {
            path: path.into(),
            what: What::File {
                mode: mode & 0o7777,
                content: content.into(),
            },
        }
    }

    /// An empty folder to mount something on. It is there, and listed, only where the host has nothing of that name; so
    /// are the folders that lead to it. A guest that has looked it up keeps it, whatever the host makes, until it forgets it.
    #[must_use]
    pub fn folder(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            what: What::Folder,
        }
    }

    /// An empty file to bind another one over. It is there, and kept by a guest that knows it, as a [`folder`](Self::folder).
    #[must_use]
    pub fn empty_file(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            what: What::EmptyFile,
        }
    }
}

impl What {
    /// Permissions and bytes, unless it is a folder.
    fn file(&self) -> Option<(u32, Content)> {
        match self {
            Self::Folder => None,
            Self::EmptyFile => Some((EMPTY_FILE_MODE, Content::Static(&[]))),
            Self::File { mode, content } => Some((*mode, content.clone())),
        }
    }
}

/// Where a node is in the tree; 0 is the root, which is the root of the file system underneath.
pub(super) type Index = usize;

#[derive(Debug)]
pub(super) struct VirtualNode {
    pub(super) name: Vec<u8>,
    pub(super) children: Vec<Index>,
    /// `None` for a folder.
    pub(super) file: Option<(u32, Content)>,
    /// It hides what the host has, and is not listed.
    pub(super) hidden: bool,
}

#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<VirtualNode>,
}

impl Tree {
    pub(super) fn new(entries: Vec<VirtualEntry>) -> Result<Self, OverlayError> {
        let root = VirtualNode {
            name: Vec::new(),
            children: Vec::new(),
            file: None,
            hidden: false,
        };
        let mut tree = Self { nodes: vec![root] };
        for entry in entries {
            tree.add(&entry).ok_or(OverlayError::Path { path: entry.path })?;
        }
        Ok(tree)
    }

    fn add(&mut self, entry: &VirtualEntry) -> Option<()> {
        let hidden = matches!(entry.what, What::File { .. });
        let names: Vec<&str> = entry.path.split('/').filter(|name| !name.is_empty()).collect();
        if names.is_empty() || !entry.path.starts_with('/') {
            return None;
        }
        let mut at = 0;
        for name in names {
            at = self.child_or_new(at, name, hidden)?;
        }
        let node = self.nodes.get_mut(at)?;
        match entry.what.file() {
            None => node.file.is_none().then_some(()),
            Some(_) if node.file.is_some() || !node.children.is_empty() => None,
            file => {
                node.file = file;
                Some(())
            }
        }
    }

    fn child_or_new(&mut self, parent: Index, name: &str, hidden: bool) -> Option<Index> {
        let c_name = std::ffi::CString::new(name).ok()?;
        Name::new(&c_name).ok()?;
        if self.nodes.get(parent)?.file.is_some() {
            return None;
        }
        if let Some(child) = self.child(parent, name.as_bytes()) {
            return Some(child);
        }
        let child = self.nodes.len();
        self.nodes.push(VirtualNode {
            name: name.into(),
            children: Vec::new(),
            file: None,
            hidden,
        });
        self.nodes.get_mut(parent)?.children.push(child);
        Some(child)
    }

    pub(super) fn get(&self, index: Index) -> Option<&VirtualNode> {
        self.nodes.get(index)
    }

    pub(super) fn child(&self, parent: Index, name: &[u8]) -> Option<Index> {
        let children = &self.nodes.get(parent)?.children;
        children
            .iter()
            .copied()
            .find(|child| self.get(*child).is_some_and(|node| node.name == name))
    }

    pub(super) fn entry(&self, index: Index) -> Option<Entry> {
        Some(Entry {
            node: virtual_node(index),
            attr: self.attr(index)?,
        })
    }

    pub(super) fn attr(&self, index: Index) -> Option<Attr> {
        let node = self.get(index)?;
        let (mode, size, nlink) = match &node.file {
            Some((mode, content)) => (FileKind::Regular.mode() | mode, content.bytes().len() as u64, 1),
            None => (FileKind::Directory.mode() | 0o755, 0, 2),
        };
        let blocks = size.div_ceil(512);
        Some(Attr {
            ino: FIRST_INO + index as u64,
            size,
            blocks,
            mode,
            nlink,
            blksize: 4096,
            ..Attr::default()
        })
    }
}

fn virtual_node(index: Index) -> NodeId {
    NodeId(VIRTUAL | index as u64)
}

/// The index in a node ID or a handle of a virtual file.
pub(super) fn index(id: u64) -> Option<Index> {
    (id & VIRTUAL != 0).then(|| usize::try_from(id & !VIRTUAL).unwrap_or(Index::MAX))
}

/// A handle for a virtual file: there is nothing to keep, so it is the node ID.
pub(super) fn handle(index: Index) -> crate::Handle {
    crate::Handle(virtual_node(index).0)
}
