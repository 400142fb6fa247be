//! What a sync of the whole share has to reach.
//!
//! Linux sends SYNCFS for the root of a mount alone, and takes the share for one file system. So each mount beneath it that the
//! guest has changed is remembered here, by a descriptor of a folder in it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::Passthrough;
use super::nodes::{ROOT, Slot};
use super::stat::Key;
use crate::errno::{Errno, Result};
use crate::{Completion, FileKind, Job, NodeId};

/// File systems that are remembered. With more, a sync is also one of all that the host has.
const MAX_DEVICES: usize = 16;

/// The part of the open files that a guest may have that these descriptors are taken from.
const PART: usize = 4;

/// What the guest has changed beside the file system of the share's root.
#[derive(Debug, Default)]
pub(super) struct Changed {
    devices: Vec<(Key, Arc<OwnedFd>)>,
    /// There was something that could not be remembered.
    more: bool,
}

/// What one SYNCFS syncs.
#[derive(Debug)]
pub(super) struct ToSync {
    /// The file systems of these files.
    files: Vec<Arc<OwnedFd>>,
    /// All that the host has too.
    everything: bool,
}

impl ToSync {
    /// # Errors
    /// As [`sync_files`](Self::sync_files): `sync(2)` has none.
    fn sync(&self) -> Result<()> {
        if self.everything {
            rustix::fs::sync();
        }
        self.sync_files()
    }

    /// # Errors
    /// The first one; the others are synced all the same.
    fn sync_files(&self) -> Result<()> {
        let mut done = Ok(());
        self.files
            .iter()
            .for_each(|file| done = done.and(rustix::fs::syncfs(file)));
        Ok(done?)
    }
}

impl Key {
    fn is_synced_with(&self, other: &Self) -> bool {
        self.device == other.device || self.is_on_mount_of(other)
    }
}

impl Passthrough {
    /// To be called when something changes, or is opened to be changed.
    #[inline]
    pub(super) fn changes(&mut self, slot: Slot) {
        if let Ok(node) = self.nodes.get(slot)
            && node.key.device != self.root_key.device
        {
            let key = node.key;
            self.changes_elsewhere(slot, &key);
        }
    }

    #[inline(never)]
    fn changes_elsewhere(&mut self, slot: Slot, key: &Key) {
        let known = |(known, _): &(Key, _)| key.is_synced_with(known);
        if key.is_synced_with(&self.root_key) || self.changed.more || self.changed.devices.iter().any(known) {
            return;
        }
        match self.file_to_sync(slot, key) {
            Ok(file) => self.changed.devices.push((*key, Arc::new(file))),
            Err(_) => self.changed.more = true,
        }
    }

    /// A folder rather than a file: what is removed later must not take room for as long as the guest runs.
    fn file_to_sync(&mut self, slot: Slot, key: &Key) -> Result<OwnedFd> {
        let most = MAX_DEVICES.min(self.config.max_open_files / PART);
        if self.changed.devices.len() >= most || !self.files.take_one(&self.nodes) {
            return Err(Errno::ENFILE);
        }
        let folder = self.nodes.place(slot).map(|(folder, _)| folder);
        let is_there = |folder: &Slot| self.nodes.get(*folder).is_ok_and(|node| node.key.is_synced_with(key));
        let is_folder = self.kind(slot)? == FileKind::Directory;
        let slot = folder.filter(is_there).filter(|_| !is_folder).unwrap_or(slot);
        self.open_to_sync(slot)
    }

    fn open_to_sync(&mut self, slot: Slot) -> Result<OwnedFd> {
        let (fd, _) = self.fd_once(slot)?;
        match self.kind(slot)? {
            FileKind::Directory => self.open_data(&fd, OFlags::RDONLY | OFlags::DIRECTORY),
            FileKind::Regular => self.open_data(&fd, OFlags::RDONLY),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn do_syncfs(&mut self, node: NodeId) -> Result<Completion> {
        let all = self.files_to_sync(node)?;
        Ok(Completion::Later(Job::new(move || all.sync())))
    }

    /// The file system of `node`, and those that were changed.
    fn files_to_sync(&mut self, node: NodeId) -> Result<ToSync> {
        let slot = self.nodes.slot(node)?;
        let mut files = vec![match &self.root_to_sync {
            Some(root) if slot == ROOT => Arc::clone(root),
            _ => Arc::new(self.open_to_sync(slot)?),
        }];
        files.extend(self.changed.devices.iter().map(|(_, file)| Arc::clone(file)));
        Ok(ToSync {
            files,
            everything: self.changed.more,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, CString};
    use std::path::Path;

    use fuse_wire::Name;

    use super::*;
    use crate::passthrough::PassthroughConfig;
    use crate::{Context, FileSystem};

    fn device_of(path: &Path) -> u64 {
        rustix::fs::stat(path).unwrap().st_dev
    }

    /// The devices that a sync is of, and whether it is also one of everything.
    fn devices(share: &mut Passthrough) -> (Vec<u64>, bool) {
        let ToSync { files, everything } = share.files_to_sync(NodeId::ROOT).unwrap();
        let devices = files.iter().map(|file| rustix::fs::fstat(file).unwrap().st_dev);
        (devices.collect(), everything)
    }

    fn name(name: &CStr) -> Name<'_> {
        Name::new(name).unwrap()
    }

    /// A folder on a tmpfs beneath a share of `/dev`: the share, the folder's node, and a file in it.
    fn scene(config: PassthroughConfig) -> Option<(Passthrough, NodeId, tempfile::TempDir)> {
        let (above, beneath) = (Path::new("/dev"), Path::new("/dev/shm"));
        if !beneath.is_dir() || device_of(above) == device_of(beneath) {
            eprintln!("skipped: takes a /dev/shm that is mounted beneath /dev");
            return None;
        }
        let temp = tempfile::tempdir_in(beneath).unwrap();
        std::fs::write(temp.path().join("file"), b"x").unwrap();
        let mut share = Passthrough::new(above, config).unwrap();
        let shm = share.lookup(NodeId::ROOT, name(c"shm")).unwrap().node;
        let folder = CString::new(temp.path().file_name().unwrap().as_encoded_bytes()).unwrap();
        let folder = share.lookup(shm, name(&folder)).unwrap().node;
        Some((share, folder, temp))
    }

    #[test]
    fn sync_reaches_what_was_opened_for_writing_beneath_another_mount() {
        let Some((mut share, folder, temp)) = scene(PassthroughConfig::default()) else {
            return;
        };
        let file = share.lookup(folder, name(c"file")).unwrap().node;
        let root = device_of(Path::new("/dev"));
        let read = share.open(file, libc::O_RDONLY.cast_unsigned(), false).unwrap();
        assert_eq!(devices(&mut share), (vec![root], false), "what was only read");
        share.release(file, read.handle, None);
        for _ in 0..2 {
            let written = share.open(file, libc::O_WRONLY.cast_unsigned(), false).unwrap();
            share.release(file, written.handle, None);
            share.mkdir(&Context::default(), folder, name(c"new"), 0o700).unwrap();
            share.rmdir(folder, name(c"new")).unwrap();
            assert_eq!(devices(&mut share), (vec![root, device_of(temp.path())], false));
        }
        share.unmounted();
        assert_eq!(devices(&mut share), (vec![root], false));
    }

    #[test]
    fn sync_is_also_of_everything_where_there_is_no_descriptor_to_remember_by() {
        let Some((mut share, folder, _temp)) = scene(PassthroughConfig {
            max_open_files: PART - 1,
            ..PassthroughConfig::default()
        }) else {
            return;
        };
        share.mkdir(&Context::default(), folder, name(c"new"), 0o700).unwrap();
        assert_eq!(devices(&mut share), (vec![device_of(Path::new("/dev"))], true));
    }

    /// What could not be remembered does not take back what was.
    #[test]
    fn sync_of_everything_is_one_of_what_is_remembered_too() {
        let Some((mut share, folder, temp)) = scene(PassthroughConfig::default()) else {
            return;
        };
        share.mkdir(&Context::default(), folder, name(c"new"), 0o700).unwrap();
        share.changed.more = true;
        let both = vec![device_of(Path::new("/dev")), device_of(temp.path())];
        assert_eq!(devices(&mut share), (both, true));
    }

    /// To a descriptor that was opened later than another sync was told of an error, the error is over.
    #[test]
    fn sync_is_told_of_errors_since_the_share_was_made() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("file"), b"x").unwrap();
        let roots = [temp.path().to_owned(), temp.path().join("file")];
        for (root, has_handles) in roots.iter().flat_map(|root| [(root, true), (root, false)]) {
            let mut share = Passthrough::new(root, PassthroughConfig::default()).unwrap();
            if !has_handles {
                share = share.without_file_handles();
            }
            let synced = |share: &mut Passthrough| share.files_to_sync(NodeId::ROOT).unwrap().files;
            let from_the_start = share.root_to_sync.clone();
            for mounted_anew in [false, true] {
                if mounted_anew {
                    share.unmounted();
                }
                for _ in 0..2 {
                    let (files, first) = (synced(&mut share), from_the_start.as_ref().unwrap());
                    assert!(Arc::ptr_eq(&files[0], first), "{root:?}, handles: {has_handles}");
                }
            }
        }
    }

    /// As it was in the beginning, so that a share that cannot be listed can be mounted and does without.
    #[test]
    fn sync_of_a_root_that_could_not_be_opened_opens_it_anew() {
        let temp = tempfile::tempdir().unwrap();
        let mut share = Passthrough::new(temp.path(), PassthroughConfig::default()).unwrap();
        share.root_to_sync = None;
        let device = device_of(temp.path());
        assert_eq!(devices(&mut share), (vec![device], false));
    }

    #[test]
    fn sync_tells_the_first_error_of_a_file_system() {
        let temp = tempfile::tempdir().unwrap();
        let open = |flags| Arc::new(rustix::fs::open(temp.path(), flags, rustix::fs::Mode::empty()).unwrap());
        let (good, bad) = (open(OFlags::RDONLY), open(OFlags::PATH));
        for (files, done) in [
            (vec![Arc::clone(&good)], Ok(())),
            (vec![Arc::clone(&bad), good], Err(Errno::EBADF)),
        ] {
            let all = ToSync {
                files,
                everything: false,
            };
            assert_eq!(all.sync(), done);
        }
    }
}
