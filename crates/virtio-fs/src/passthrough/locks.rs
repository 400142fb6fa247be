//! Locks that the host keeps.
//!
//! POSIX locks belong to an owner in the guest, usually a process, and all of this process's guests would be one owner
//! to the host. So each owner gets an open file of its own for each file that it locks, and its locks are those of that
//! open file (`F_OFD_SETLK`). `flock` locks belong to an open file of the guest, which is an open file here.
//!
//! A guest's process that closes any descriptor of a file loses its locks on it, and FLUSH tells who that is. For an owner
//! that is an open file of the guest (its own `F_OFD_SETLK`) Linux tells nothing; its locks go when nobody in the guest has
//! the file open any more.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, OFlags};

use super::nodes::Slot;
use super::{LockPolicy, Passthrough};
use crate::errno::{Errno, Result};
use crate::{FileKind, Handle, LockRange, NodeId, sys};

/// The open files that locks belong to. They count among those that a guest may have.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// By node and owner, so that those of a node are side by side.
    owners: BTreeMap<(Slot, u64), OwnedFd>,
}

impl Locks {
    pub(super) fn descriptors(&self) -> usize {
        self.owners.len()
    }

    /// Nobody has a node open, and so nobody has a lock of it. It may be gone, and its slot will be another's.
    pub(super) fn forget(&mut self, gone: Slot) {
        while let Some((owner, _)) = self.owners.range((gone, 0)..=(gone, u64::MAX)).next() {
            let owner = *owner;
            self.owners.remove(&owner);
        }
    }
}

impl Passthrough {
    fn check_lock(&self, node: NodeId, handle: Handle) -> Result<Slot> {
        if self.config.locks == LockPolicy::Guest {
            return Err(Errno::ENOSYS);
        }
        let slot = self.nodes.slot(node)?;
        self.files.get(handle, slot)?;
        Ok(slot)
    }

    pub(super) fn do_getlk(
        &mut self,
        node: NodeId,
        handle: Handle,
        owner: u64,
        wanted: &LockRange,
    ) -> Result<LockRange> {
        let slot = self.check_lock(node, handle)?;
        let request = file_lock(wanted)?;
        self.open_for_owner(slot, owner)?;
        let file = self.files.locks.owners.get(&(slot, owner)).ok_or(Errno::ENOLCK)?;
        let found = sys::get_file_lock(file.as_fd(), request)?;
        Ok(lock_range(&found))
    }

    pub(super) fn do_setlk(
        &mut self,
        node: NodeId,
        handle: Handle,
        owner: u64,
        wanted: &LockRange,
        flock: bool,
    ) -> Result<()> {
        let slot = self.check_lock(node, handle)?;
        if flock {
            let operation = match wanted.kind.cast_signed() {
                libc::F_RDLCK => FlockOperation::NonBlockingLockShared,
                libc::F_WRLCK => FlockOperation::NonBlockingLockExclusive,
                libc::F_UNLCK => FlockOperation::NonBlockingUnlock,
                _ => return Err(Errno::EINVAL),
            };
            return Ok(rustix::fs::flock(&self.files.get(handle, slot)?.fd, operation)?);
        }
        let request = file_lock(wanted)?;
        let unlocks = wanted.kind.cast_signed() == libc::F_UNLCK;
        if unlocks && !self.files.locks.owners.contains_key(&(slot, owner)) {
            return Ok(());
        }
        self.open_for_owner(slot, owner)?;
        let file = self.files.locks.owners.get(&(slot, owner)).ok_or(Errno::ENOLCK)?;
        match sys::set_file_lock(file.as_fd(), &request).map_err(Errno::from) {
            Err(Errno::EACCES) => Err(Errno::EAGAIN),
            done => done,
        }
    }

    /// Drops the `flock` lock of an open file that will be closed. A sync that is under way keeps the host's descriptor open.
    pub(super) fn unlock_file(&mut self, node: NodeId, handle: Handle) {
        let file = self
            .check_lock(node, handle)
            .and_then(|slot| self.files.get(handle, slot));
        if let Ok(file) = file {
            // Without a lock there is nothing to drop, and nobody who could be told.
            let _ = rustix::fs::flock(&file.fd, FlockOperation::NonBlockingUnlock);
        }
    }

    /// Drops all locks of an owner on a file.
    pub(super) fn do_flush(&mut self, node: NodeId, owner: u64) -> Result<()> {
        if self.config.locks == LockPolicy::Guest {
            // The guest's kernel then does not tell us again.
            return Err(Errno::ENOSYS);
        }
        let slot = self.nodes.slot(node)?;
        self.files.locks.owners.remove(&(slot, owner));
        Ok(())
    }

    /// A write lock takes a file that is open for writing, a read lock one that is open for reading.
    fn open_for_owner(&mut self, slot: Slot, owner: u64) -> Result<()> {
        if self.files.locks.owners.contains_key(&(slot, owner)) {
            return Ok(());
        }
        if self.files.is_full(&self.nodes) {
            return Err(Errno::ENOLCK);
        }
        if self.kind(slot)? != FileKind::Regular {
            return Err(Errno::EINVAL);
        }
        let fd = self.fd_at(slot)?;
        let modes: &[OFlags] = match self.config.read_only {
            true => &[OFlags::RDONLY],
            false => &[OFlags::RDWR, OFlags::RDONLY, OFlags::WRONLY],
        };
        let mut opened = Err(Errno::EACCES);
        for mode in modes {
            opened = self.open_data(&fd, *mode);
            // ETXTBSY: the host runs it.
            if !matches!(
                opened,
                Err(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ETXTBSY)
            ) {
                break;
            }
        }
        self.files.locks.owners.insert((slot, owner), opened?);
        Ok(())
    }
}

fn file_lock(range: &LockRange) -> Result<libc::flock64> {
    let kind = match range.kind.cast_signed() {
        kind @ (libc::F_RDLCK | libc::F_WRLCK | libc::F_UNLCK) => kind,
        _ => return Err(Errno::EINVAL),
    };
    let start = i64::try_from(range.start).map_err(|_| Errno::EINVAL)?;
    let to_the_end = range.end >= i64::MAX.cast_unsigned();
    let length = match range.end.checked_sub(range.start).and_then(|last| last.checked_add(1)) {
        _ if to_the_end => 0,
        Some(length) => i64::try_from(length).map_err(|_| Errno::EINVAL)?,
        None => return Err(Errno::EINVAL),
    };
    Ok(libc::flock64 {
        l_type: i16::try_from(kind).map_err(|_| Errno::EINVAL)?,
        l_whence: 0,
        l_start: start,
        l_len: length,
        l_pid: 0,
    })
}

fn lock_range(lock: &libc::flock64) -> LockRange {
    let start = lock.l_start.cast_unsigned();
    let end = match lock.l_len {
        0 => i64::MAX.cast_unsigned(),
        length => start.saturating_add(length.cast_unsigned()).saturating_sub(1),
    };
    // Who holds it is not known: the host does not tell for locks of open files.
    LockRange {
        kind: u32::from(lock.l_type.cast_unsigned()),
        start,
        end,
        pid: 0,
    }
}
