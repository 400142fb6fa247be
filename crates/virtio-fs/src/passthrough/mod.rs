//! A folder of the host as it is.
//!
//! The guest gets what the process may do inside the folder and nothing outside of it; see `resolve` for how names
//! become descriptors. A node holds a descriptor only while that is cached, so a guest that knows a million files does
//! not use a million descriptors.

mod attributes;
mod back_end;
mod caching;
mod config;
mod create;
mod data;
mod fd_cache;
mod kept;
mod listing;
mod locks;
mod mounts;
mod names;
mod nodes;
mod open_files;
mod resolve;
mod short_bytes;
mod stat;
mod synced;
mod xattr;

pub use config::{CachePolicy, LockPolicy, PassthroughConfig};

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fuse_wire::InitFlags;
use rustix::fs::{Mode, OFlags};
use rustix::thread::CapabilitySet;

use crate::errno::{Errno, Result};
use crate::{FileKind, NodeId, sys};
use fd_cache::FdCache;
use listing::Listings;
use nodes::Nodes;
use open_files::OpenFiles;
use stat::{Key, Stat};
use synced::Changed;

/// Serves a folder, or a single file, of the host.
///
/// A file makes a root that is no folder, which no kernel mounts: wrap it in [`SingleFile`](crate::SingleFile).
#[derive(Debug)]
pub struct Passthrough {
    config: PassthroughConfig,
    root: Arc<OwnedFd>,
    root_key: Key,
    root_kind: FileKind,
    /// `/proc/self/fd`, to open what an O_PATH descriptor stands for.
    descriptors: OwnedFd,
    /// A real descriptor of the root, where the process may open that. Of an error that the host's file system had while it
    /// was open it tells at the next sync, whoever else was told meanwhile.
    root_to_sync: Option<Arc<OwnedFd>>,
    /// The same, where file handles can be used.
    handle_mount: Option<Arc<OwnedFd>>,
    rights: Rights,
    has_openat2: bool,
    nodes: Nodes,
    fds: FdCache,
    files: OpenFiles,
    changed: Changed,
    listings: Listings,
    /// Room for paths, reused.
    path: Vec<u8>,
    negotiated: InitFlags,
}

/// What the process may do and who it is. Looked up once: it is the thread that makes the `Passthrough` that counts.
#[derive(Clone, Copy, Debug)]
struct Rights {
    uid: u32,
    gid: u32,
    /// Files can be given to other users.
    chown: bool,
    /// The host leaves set-ID bits alone when this process writes, so clearing them is up to us.
    keeps_suid: bool,
}

impl Rights {
    fn of_this_thread() -> Self {
        let effective = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            chown: effective.contains(CapabilitySet::CHOWN | CapabilitySet::FOWNER),
            keeps_suid: effective.contains(CapabilitySet::FSETID),
        }
    }
}

impl Passthrough {
    /// Shares what is at `root`. Symbolic links in that path are followed, as the caller chose it.
    ///
    /// # Errors
    /// When `root` cannot be opened, is neither a folder nor a regular file, or `/proc` is not mounted.
    pub fn new(root: &Path, config: PassthroughConfig) -> io::Result<Self> {
        Self::from_fd(
            rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
            config,
        )
    }

    /// Shares what a descriptor stands for; O_PATH is enough.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_fd(root: OwnedFd, config: PassthroughConfig) -> io::Result<Self> {
        let stat = Stat::of(&root).map_err(to_io)?;
        if !matches!(stat.kind(), FileKind::Directory | FileKind::Regular) {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "neither a folder nor a regular file",
            ));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptors = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())
            .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("/proc/self/fd: {error}")))?;
        let root_to_sync = open_to_read(&root, &descriptors);
        let mut nodes = Nodes::new(&stat, config.max_nodes);
        nodes.set_reborn(&stat, mounts::is_reborn_on(&root));
        Ok(Self {
            root_key: stat.key,
            root_kind: stat.kind(),
            has_openat2: resolve::has_openat2(&root),
            root: Arc::new(root),
            descriptors,
            handle_mount: root_to_sync.clone().filter(handles_work),
            root_to_sync,
            rights: Rights::of_this_thread(),
            nodes,
            fds: FdCache::new(config.cached_descriptors),
            files: OpenFiles::new(config.max_open_files),
            changed: Changed::default(),
            listings: Listings::default(),
            path: Vec::new(),
            negotiated: InitFlags::empty(),
            config,
        })
    }

    /// Whether the root is a folder or a single file.
    #[must_use]
    pub fn root_kind(&self) -> FileKind {
        self.root_kind
    }

    /// What is held for the guest at present.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            cached_descriptors: self.fds.len(),
            kept_descriptors: self.nodes.kept(),
            open_files: self.files.descriptors(),
            nodes: self.nodes.len(),
        }
    }

    /// Without file handles, as where the host does not give them out: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn without_file_handles(mut self) -> Self {
        self.handle_mount = None;
        self
    }

    fn reset(&mut self) {
        self.files = OpenFiles::new(self.config.max_open_files);
        self.changed = Changed::default();
        self.fds = FdCache::new(self.config.cached_descriptors);
        self.nodes.clear();
        self.listings = Listings::default();
    }

    /// Takes lookups back, and gives up what is not needed any more then.
    fn forget_node(&mut self, id: NodeId, count: u64) {
        if let Ok(slot) = self.nodes.slot(id) {
            self.nodes.forget(slot, count);
            self.collect();
        }
    }

    /// Nodes that nothing refers to go.
    #[inline]
    fn collect(&mut self) {
        while let Some((slot, node)) = self.nodes.take_unused() {
            if let Some(place) = node.cached {
                self.fds.remove(place);
            }
            self.files.locks.forget(slot);
        }
    }

    fn refuse_if_full(&self) -> Result<()> {
        if self.files.is_full(&self.nodes) {
            Err(Errno::ENFILE)
        } else {
            Ok(())
        }
    }

    /// Before something is made: what the guest cannot be told of would stay on the host.
    fn refuse_if_nodes_full(&self) -> Result<()> {
        if self.nodes.is_full() {
            Err(Errno::ENFILE)
        } else {
            Ok(())
        }
    }
}

/// What a [`Passthrough`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Descriptors that are cached for inodes.
    pub cached_descriptors: usize,
    /// Descriptors of what has lost its name, for as long as the guest uses it.
    pub kept_descriptors: usize,
    /// Descriptors of open files and folders of the guest, and of those who have locks there.
    pub open_files: usize,
    /// Inodes that the guest knows, the root among them.
    pub nodes: usize,
}

fn to_io(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw())
}

fn open_to_read(root: &OwnedFd, descriptors: &OwnedFd) -> Option<Arc<OwnedFd>> {
    let path = sys::DescriptorPath::new(root.as_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::openat(descriptors, path.name(), flags, Mode::empty());
    opened.ok().map(Arc::new)
}

/// Whether a descriptor of the root is one for `open_by_handle_at`: it takes a file system that has file handles, and
/// CAP_DAC_READ_SEARCH.
fn handles_work(root: &Arc<OwnedFd>) -> bool {
    let handle = sys::file_handle(root.as_fd());
    handle.is_ok_and(|handle| sys::open_by_handle(root.as_fd(), &handle, libc::O_PATH).is_ok())
}
