//! Descriptors for what loses its name while the guest uses it.
//!
//! Linux sends no OPEN for pipes, sockets and devices, which it serves itself, nor for O_PATH and working folders. When such
//! an inode has no name any more nothing but a descriptor leads to it. It is kept until the guest forgets the inode, or finds
//! it under another name. A regular file is kept only where that takes no system call: who uses it has it open, but
//! for O_PATH.
//!
//! A guest that collects writes (`writeback`) keeps the times of regular files itself. When a name of one goes it sends the time of
//! that at once, with no handle unless the file is open for writing, and has an error of the whole mount where that fails, which a
//! later `syncfs` gives to somebody. So there a file that loses its last name is kept too: until the FORGET that follows if nobody
//! uses it. Doing nothing, and saying that it is done, would take no system call, but a program that sets times by O_PATH sends
//! the same and believes the attributes that come back.

use super::Passthrough;
use super::nodes::Slot;
use super::stat::Stat;
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
        let is_file = node.kind == FileKind::Regular && node.cached.is_none();
        let is_open = node.open.is_some();
        if node.kept.is_some() || (is_file && !self.config.collects_writes()) {
            return Ok(false);
        }
        if self.files.is_full(&self.nodes) || self.nodes.kept() >= self.config.max_open_files / PART {
            // As good as it gets: in time it makes room for others.
            return self.fd_at(slot).map(|_| false);
        }
        // Of an open file that is its own: Linux may have closed it, and its RELEASE come before the time.
        let (fd, stat) = self.fd_once(slot)?;
        if is_file && stat.map_or_else(|| Stat::of(&fd), Ok)?.attr.nlink > 1 {
            // The guest may know it by another name for long. The time that follows comes before the cache has turned over.
            if !is_open {
                self.cache_fd(slot, &fd)?;
            }
            return Ok(false);
        }
        self.nodes.keep(slot, fd);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use fuse_wire::Name;

    use super::*;
    use crate::passthrough::{CachePolicy, PassthroughConfig};
    use crate::{Change, Errno, FileSystem, NodeId, TimeChange};

    /// A share of a folder with these files, each of which the guest knows.
    fn scene(files: &[&str], config: PassthroughConfig) -> (Passthrough, Vec<NodeId>, tempfile::TempDir) {
        let temp = tempfile::tempdir().unwrap();
        let mut share = Passthrough::new(temp.path(), config).unwrap();
        let look_up = |file: &&str| {
            std::fs::write(temp.path().join(file), b"x").unwrap();
            let name = CString::new(*file).unwrap();
            share.lookup(NodeId::ROOT, Name::new(&name).unwrap()).unwrap().node
        };
        let nodes = files.iter().map(look_up).collect();
        (share, nodes, temp)
    }

    fn collecting() -> PassthroughConfig {
        PassthroughConfig {
            cache: CachePolicy::Always,
            writeback: true,
            ..PassthroughConfig::default()
        }
    }

    fn unlink(share: &mut Passthrough, name: &str) {
        let name = CString::new(name).unwrap();
        share.unlink(NodeId::ROOT, Name::new(&name).unwrap()).unwrap();
    }

    fn set_time(share: &mut Passthrough, node: NodeId) -> Result<()> {
        let change = Change {
            mtime: Some(TimeChange::Now),
            ..Change::default()
        };
        share.setattr(node, None, &change).map(drop)
    }

    #[test]
    fn file_without_a_name_is_there_for_its_times_where_the_guest_has_them() {
        for (config, links, kept, set) in [
            (PassthroughConfig::default(), 1, 0, Err(Errno::ESTALE)),
            (collecting(), 1, 1, Ok(())),
            // What has other names does not hold a descriptor for as long as the guest knows it.
            (collecting(), 2, 0, Ok(())),
        ] {
            let (mut share, nodes, temp) = scene(&["file"], config);
            if links == 2 {
                std::fs::hard_link(temp.path().join("file"), temp.path().join("other")).unwrap();
            }
            unlink(&mut share, "file");
            assert_eq!(share.usage().kept_descriptors, kept, "{links}");
            assert_eq!(set_time(&mut share, nodes[0]), set, "{links}");
            share.forget(nodes[0], 1);
            let usage = share.usage();
            assert_eq!((usage.kept_descriptors, usage.cached_descriptors), (0, 0), "{links}");
        }
    }

    #[test]
    fn files_without_names_are_kept_up_to_a_part_of_the_open_ones() {
        let config = PassthroughConfig {
            max_open_files: 2 * PART,
            ..collecting()
        };
        let files = ["a", "b", "c", "d"];
        let (mut share, nodes, _temp) = scene(&files, config);
        for (name, node) in files.iter().zip(nodes) {
            unlink(&mut share, name);
            assert_eq!(set_time(&mut share, node), Ok(()), "{name}");
        }
        assert_eq!(share.usage().kept_descriptors, 2);
    }
}
