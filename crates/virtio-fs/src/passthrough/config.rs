//! What can be chosen for a share.

use std::time::Duration;

use fuse_wire::{InitFlags, OpenOutFlags};

use crate::Options;

/// How the guest's kernel may cache what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CachePolicy {
    /// Nothing is cached: each access asks the host. A change by the host is seen at once. Shared mappings work where
    /// the guest has FUSE 7.39; what is mapped is in the guest's memory, and a change by the host is seen there when somebody in
    /// the guest asks for the file's attributes, or opens and maps it again.
    None,
    /// Close-to-open: who opens a file after another has closed it reads what that one wrote. Names and attributes, the
    /// size that a mapping ends at among them, may be one second old. A file that is only written, or opened to append, with nobody else
    /// at it, is not cached meanwhile. What a process of the host writes through a mapping is no change where it leaves the file's times
    /// alone, as all but the first write to a page does on a tmpfs.
    #[default]
    Auto,
    /// Nothing but the guest changes the share while it is mounted. A change by the host may never be seen.
    Always,
}

/// Who keeps POSIX and `flock` locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LockPolicy {
    /// The guest's kernel. Locks do not reach the host nor other guests.
    #[default]
    Guest,
    /// The host: locks hold between guests, and between guests and the host's processes. A guest's process that waits
    /// for a lock over virtio cannot be killed until it has it, as the driver does not pass on interrupts. A read-only
    /// share gives shared locks and answers EROFS to exclusive ones.
    Host,
}

/// Settings of a [`Passthrough`](super::Passthrough).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassthroughConfig {
    /// The guest can change nothing, access times included where the host lets us.
    pub read_only: bool,
    /// How the guest may cache.
    pub cache: CachePolicy,
    /// The guest collects writes and sends them later. Sound only where nothing else writes to the share, so it takes
    /// [`CachePolicy::Always`] and counts for nothing with the others.
    pub writeback: bool,
    /// Extended attributes: `user.*` (without `user.overlay.*`) and `security.capability`. Others stay on the host's side in any case.
    pub xattr: bool,
    /// The guest's root can make device nodes, if the process can. They mean nothing in the guest that it could not do
    /// anyway, but they are real ones for users of the host who reach the share.
    pub device_nodes: bool,
    /// Who keeps locks.
    pub locks: LockPolicy,
    /// Inodes that a guest may know at a time; some 300 bytes each. Beyond it the guest gets ENFILE. See
    /// [`max_nodes_for_memory`](Self::max_nodes_for_memory).
    pub max_nodes: usize,
    /// Files and folders that a guest may have open at a time; a descriptor each, and one for each owner of POSIX locks on a
    /// file with [`LockPolicy::Host`] (ENOLCK beyond). Pipes, folders and the like that lose their
    /// name while the guest uses them count among them, up to a quarter, and so do file systems beneath the share that it has
    /// changed.
    pub max_open_files: usize,
    /// Descriptors cached for inodes that are not open.
    pub cached_descriptors: usize,
}

impl Default for PassthroughConfig {
    fn default() -> Self {
        Self {
            read_only: false,
            cache: CachePolicy::Auto,
            writeback: false,
            xattr: true,
            device_nodes: true,
            locks: LockPolicy::Guest,
            max_nodes: 1 << 20,
            max_open_files: 1 << 16,
            cached_descriptors: 64,
        }
    }
}

impl PassthroughConfig {
    /// As many inodes as a guest with so much memory can know: its kernel takes more than 1 KiB for each. A guest that
    /// claims more is lying and costs the host this much at most.
    #[must_use]
    pub fn max_nodes_for_memory(memory_bytes: u64) -> usize {
        usize::try_from(memory_bytes / 1024)
            .unwrap_or(usize::MAX)
            .clamp(1 << 16, u32::MAX as usize)
    }

    /// Whether the guest collects writes.
    pub(super) fn collects_writes(&self) -> bool {
        self.writeback && self.cache == CachePolicy::Always && !self.read_only
    }

    pub(super) fn options(&self) -> Options {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        const SECOND: Duration = Duration::from_secs(1);
        let (positive, negative) = match self.cache {
            CachePolicy::None => (Duration::ZERO, Duration::ZERO),
            // Something may be created by the host at any time, and programs that wait for it are common.
            CachePolicy::Auto => (SECOND, Duration::ZERO),
            CachePolicy::Always => (DAY, DAY),
        };
        Options {
            read_only: self.read_only,
            entry_valid: positive,
            attr_valid: positive,
            negative_valid: negative,
            flags: self.flags(),
        }
    }

    fn flags(&self) -> InitFlags {
        let mut flags = InitFlags::ATOMIC_O_TRUNC
            | InitFlags::DO_READDIRPLUS
            | InitFlags::READDIRPLUS_AUTO
            | InitFlags::HANDLE_KILLPRIV_V2;
        if self.cache != CachePolicy::Always {
            flags |= InitFlags::AUTO_INVAL_DATA;
        } else {
            flags |= InitFlags::CACHE_SYMLINKS;
        }
        if self.collects_writes() {
            flags |= InitFlags::WRITEBACK_CACHE;
        }
        if self.locks == LockPolicy::Host {
            flags |= InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
        }
        flags
    }

    /// How an open folder is cached.
    pub(super) fn folder_flags(&self) -> OpenOutFlags {
        match self.cache {
            CachePolicy::Always => OpenOutFlags::KEEP_CACHE | OpenOutFlags::CACHE_DIR,
            CachePolicy::None | CachePolicy::Auto => OpenOutFlags::empty(),
        }
    }
}
