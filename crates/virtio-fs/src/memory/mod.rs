//! A tree of files in memory: for tests, for scratch space, and as an example of a back-end with everything in it.

mod back_end;
mod folder;
mod inode;

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use fuse_wire::Name;

use crate::errno::{Errno, Result};
use crate::{Context, Entry, NodeId, Timestamp};
use folder::Folder;
use inode::{Body, Inode};

/// A file system in memory. What it holds is bounded; a guest that fills it gets ENOSPC.
///
/// What a guest left there stays when it unmounts, and is there for the next.
#[derive(Debug)]
pub struct MemoryFs {
    inodes: HashMap<NodeId, Inode>,
    next: u64,
    max_bytes: usize,
    /// Of inodes, and of names.
    max_inodes: usize,
    bytes: usize,
    names: usize,
    clock: fn() -> Timestamp,
}

/// An inode, a name and their places in the tables take about this many bytes.
const INODE_COST: usize = 512;

impl MemoryFs {
    /// An empty folder with room for `max_bytes` of data and for as many inodes and names as would fit into that, at least
    /// 16. All in all it takes some three times `max_bytes` of the host at the most.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self::with_clock(max_bytes, now)
    }

    /// As [`new`](Self::new), with times from `clock`.
    #[must_use]
    pub fn with_clock(max_bytes: usize, clock: fn() -> Timestamp) -> Self {
        let mut fs = Self {
            inodes: HashMap::new(),
            next: NodeId::ROOT.0,
            max_bytes,
            max_inodes: (max_bytes / INODE_COST).max(16),
            bytes: 0,
            names: 0,
            clock,
        };
        fs.insert(&Context::default(), 0o755, Body::folder(NodeId::ROOT));
        fs
    }

    fn insert(&mut self, by: &Context, mode: u32, body: Body) -> NodeId {
        let node = NodeId(self.next);
        self.next += 1;
        let now = (self.clock)();
        self.inodes.insert(
            node,
            Inode {
                nlink: if matches!(body, Body::Folder(_)) { 2 } else { 1 },
                body,
                mode: mode & 0o7777,
                uid: by.uid,
                gid: by.gid,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                xattrs: BTreeMap::new(),
                uses: 0,
            },
        );
        node
    }

    fn inode(&self, node: NodeId) -> Result<&Inode> {
        self.inodes.get(&node).ok_or(Errno::ESTALE)
    }

    fn inode_mut(&mut self, node: NodeId) -> Result<&mut Inode> {
        self.inodes.get_mut(&node).ok_or(Errno::ESTALE)
    }

    fn folder(&self, node: NodeId) -> Result<&Folder> {
        match &self.inode(node)?.body {
            Body::Folder(folder) => Ok(folder),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// A folder in which a name is about to change.
    fn folder_mut(&mut self, node: NodeId) -> Result<&mut Folder> {
        let now = (self.clock)();
        let inode = self.inode_mut(node)?;
        (inode.mtime, inode.ctime) = (now, now);
        match &mut inode.body {
            Body::Folder(folder) => Ok(folder),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn child(&self, folder: NodeId, name: &[u8]) -> Result<NodeId> {
        self.folder(folder)?.get(name).ok_or(Errno::ENOENT)
    }

    /// Counts one lookup.
    fn entry(&mut self, node: NodeId) -> Result<Entry> {
        let inode = self.inode_mut(node)?;
        inode.uses = inode.uses.saturating_add(1);
        Ok(Entry {
            node,
            attr: inode.attr(node),
        })
    }

    /// Room for so many more bytes.
    fn reserve(&mut self, bytes: usize) -> Result<()> {
        match self.bytes.checked_add(bytes) {
            Some(sum) if sum <= self.max_bytes => {
                self.bytes = sum;
                Ok(())
            }
            _ => Err(Errno::ENOSPC),
        }
    }

    /// Whether there is room for another name.
    fn check_names(&self) -> Result<()> {
        if self.names < self.max_inodes {
            Ok(())
        } else {
            Err(Errno::ENOSPC)
        }
    }

    fn name(&mut self, folder: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        self.folder_mut(folder)?.insert(name, node);
        self.names += 1;
        Ok(())
    }

    fn make(&mut self, by: &Context, parent: NodeId, name: Name<'_>, mode: u32, body: Body) -> Result<NodeId> {
        match self.child(parent, name.to_bytes()) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        if self.inode(parent)?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if self.inodes.len() >= self.max_inodes {
            return Err(Errno::ENOSPC);
        }
        self.check_names()?;
        self.reserve(usize::try_from(body.len()).unwrap_or(usize::MAX))?;
        let is_folder = matches!(body, Body::Folder(_));
        let handed_down = self.handed_down(parent)?;
        let mode = if handed_down.is_some() && is_folder {
            mode | libc::S_ISGID
        } else {
            mode
        };
        let gid = handed_down.unwrap_or(by.gid);
        let node = self.insert(&Context { gid, ..*by }, mode, body);
        self.name(parent, name.to_bytes(), node)?;
        if is_folder {
            self.inode_mut(parent)?.nlink += 1;
        }
        Ok(node)
    }

    /// The group that a folder gives to what is made in it.
    fn handed_down(&self, folder: NodeId) -> Result<Option<u32>> {
        let inode = self.inode(folder)?;
        Ok((inode.mode & libc::S_ISGID != 0).then_some(inode.gid))
    }

    /// Takes a name away.
    fn unname(&mut self, parent: NodeId, name: &[u8]) -> Result<()> {
        let node = self.folder_mut(parent)?.remove(name).ok_or(Errno::ENOENT)?;
        self.lost_name(parent, node)
    }

    /// What has no names left and is not used goes.
    fn lost_name(&mut self, parent: NodeId, node: NodeId) -> Result<()> {
        self.names = self.names.saturating_sub(1);
        let now = (self.clock)();
        let inode = self.inode_mut(node)?;
        inode.ctime = now;
        if inode.is_folder() {
            inode.nlink = 0;
            let above = self.inode_mut(parent)?;
            above.nlink = above.nlink.saturating_sub(1);
        } else {
            inode.nlink = inode.nlink.saturating_sub(1);
        }
        self.collect(node);
        Ok(())
    }

    fn release_use(&mut self, node: NodeId, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.uses = inode.uses.saturating_sub(count);
            self.collect(node);
        }
    }

    fn collect(&mut self, node: NodeId) {
        let unused = |inode: &Inode| inode.nlink == 0 && inode.uses == 0;
        if node == NodeId::ROOT || !self.inodes.get(&node).is_some_and(unused) {
            return;
        }
        if let Some(inode) = self.inodes.remove(&node) {
            let data = usize::try_from(inode.body.len()).unwrap_or(0);
            self.bytes = self.bytes.saturating_sub(data + inode.xattrs_len());
        }
    }

    /// Whether `folder` is `node` or beneath it.
    fn is_within(&self, folder: NodeId, node: NodeId) -> bool {
        let mut at = folder;
        loop {
            if at == node {
                return true;
            }
            match self.inodes.get(&at).map(|inode| &inode.body) {
                Some(Body::Folder(folder)) if folder.parent != at => at = folder.parent,
                _ => return false,
            }
        }
    }

    fn set_parent(&mut self, node: NodeId, old: NodeId, new: NodeId) -> Result<()> {
        let Body::Folder(folder) = &mut self.inode_mut(node)?.body else {
            return Ok(());
        };
        folder.parent = new;
        if old != new {
            let from = self.inode_mut(old)?;
            from.nlink = from.nlink.saturating_sub(1);
            self.inode_mut(new)?.nlink += 1;
        }
        Ok(())
    }

    /// Makes a file longer or shorter.
    fn resize(&mut self, node: NodeId, size: u64) -> Result<()> {
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        let Body::File(bytes) = &self.inode(node)?.body else {
            return Err(Errno::EINVAL);
        };
        let was = bytes.len();
        if size > was {
            self.reserve(size - was)?;
        } else {
            self.bytes = self.bytes.saturating_sub(was - size);
        }
        let now = (self.clock)();
        let inode = self.inode_mut(node)?;
        (inode.mtime, inode.ctime) = (now, now);
        if let Body::File(bytes) = &mut inode.body {
            bytes.resize(size, 0);
            if bytes.capacity() / 2 > size {
                bytes.shrink_to_fit();
            }
        }
        Ok(())
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        secs: since.as_secs().cast_signed(),
        nanos: since.subsec_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileSystem;

    #[test]
    fn times_are_those_of_the_clock() {
        const THEN: Timestamp = Timestamp { secs: 1000, nanos: 5 };
        let mut fs = MemoryFs::with_clock(0, || THEN);
        let root = fs.getattr(NodeId::ROOT, None).unwrap();
        assert_eq!([root.atime, root.mtime, root.ctime], [THEN; 3]);
        assert_eq!(root.btime, Some(THEN));
    }
}
