//! Open files and folders.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::locks::Locks;
use super::nodes::{Nodes, Slot};
use crate::Handle;
use crate::errno::{Errno, Result};

/// An open file or folder.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) slot: Slot,
    pub(super) fd: Arc<OwnedFd>,
    /// The offset that `getdents` would go on from.
    pub(super) position: u64,
    /// `getdents` was called: to list from the start on it has to be told to go back, even where it has found nothing.
    pub(super) listed: bool,
    /// Those that the host's descriptor was opened with.
    flags: OFlags,
    appender: Appender,
    /// It is written around the guest's cache.
    direct_writer: bool,
    /// Other open files of the same node.
    next: Option<u32>,
    previous: Option<u32>,
}

impl OpenFile {
    /// The descriptor for a WRITE.
    ///
    /// # Errors
    /// EPERM for a place in a file that can only be appended to.
    pub(super) fn to_write(&self, appends: bool) -> Result<&OwnedFd> {
        match &self.appender {
            Appender::Opened(fd) if appends => Ok(fd),
            _ if !appends && self.flags.contains(OFlags::APPEND) => Err(Errno::EPERM),
            _ => Ok(&self.fd),
        }
    }
}

/// A second descriptor of an open file, with O_APPEND, for the WRITEs that append. A host that has the file from somebody else
/// (FUSE, 9p) tells them of O_APPEND alone.
#[derive(Debug)]
enum Appender {
    /// Nothing was appended yet, or there was none to be had at the time.
    None,
    Opened(OwnedFd),
    /// The host does not open the file to be written any more.
    Refused,
}

/// All open files of a guest.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: Vec<(u32, Option<OpenFile>)>,
    free: Vec<u32>,
    /// Descriptors to append through.
    appenders: usize,
    /// Descriptors that locks belong to.
    pub(super) locks: Locks,
    max: usize,
}

impl OpenFiles {
    pub(super) fn new(max: usize) -> Self {
        Self {
            files: Vec::new(),
            free: Vec::new(),
            appenders: 0,
            locks: Locks::default(),
            max: max.min(u32::MAX as usize - 1),
        }
    }

    /// How many descriptors they have.
    pub(super) fn descriptors(&self) -> usize {
        self.files.len() - self.free.len() + self.appenders + self.locks.descriptors()
    }

    /// Descriptors that are kept for nodes count too.
    pub(super) fn is_full(&self, nodes: &Nodes) -> bool {
        self.descriptors() + nodes.kept() >= self.max
    }

    /// Room for one goes to something else, if there is any.
    pub(super) fn take_one(&mut self, nodes: &Nodes) -> bool {
        let has_room = !self.is_full(nodes);
        self.max -= usize::from(has_room);
        has_room
    }

    /// `flags` are those that the host's descriptor was opened with.
    ///
    /// # Errors
    /// ENFILE when the guest has too many files open.
    pub(super) fn add(
        &mut self,
        nodes: &mut Nodes,
        slot: Slot,
        fd: OwnedFd,
        flags: OFlags,
        direct_writer: bool,
    ) -> Result<Handle> {
        if self.is_full(nodes) {
            return Err(Errno::ENFILE);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.files.push((1, None));
            u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
        });
        let node = nodes.get_mut(slot)?;
        let next = node.open.replace(index);
        node.direct_writers = node.direct_writers.saturating_add(direct_writer.into());
        node.mappable_writers = node
            .mappable_writers
            .saturating_add(may_be_mapped_to_write(flags).into());
        if let Some(next) = next.and_then(|next| self.at_mut(next)) {
            next.previous = Some(index);
        }
        let (generation, file) = self.files.get_mut(index as usize).ok_or(Errno::ENFILE)?;
        *file = Some(OpenFile {
            slot,
            fd: Arc::new(fd),
            position: 0,
            listed: false,
            flags,
            appender: Appender::None,
            direct_writer,
            next,
            previous: None,
        });
        Ok(Handle(u64::from(*generation) << 32 | u64::from(index)))
    }

    /// The open file of a node. A handle of another node is none.
    pub(super) fn get(&self, handle: Handle, slot: Slot) -> Result<&OpenFile> {
        let (generation, index) = split(handle);
        match self.files.get(index) {
            Some((is, Some(file))) if *is == generation && file.slot == slot => Ok(file),
            _ => Err(Errno::EBADF),
        }
    }

    pub(super) fn get_mut(&mut self, handle: Handle, slot: Slot) -> Result<&mut OpenFile> {
        let (generation, index) = split(handle);
        match self.files.get_mut(index) {
            Some((is, Some(file))) if *is == generation && file.slot == slot => Ok(file),
            _ => Err(Errno::EBADF),
        }
    }

    /// What a descriptor to append through is to be opened from, and its flags: `None` where there is one, or is to be none.
    pub(super) fn lacks_appender(&self, nodes: &Nodes, handle: Handle, slot: Slot) -> Option<(Arc<OwnedFd>, OFlags)> {
        let file = self.get(handle, slot).ok()?;
        let is_writer = file.flags & OFlags::ACCMODE != OFlags::RDONLY;
        let lacks = is_writer && !file.flags.contains(OFlags::APPEND) && matches!(file.appender, Appender::None);
        let flags = (file.flags - OFlags::ACCMODE - OFlags::TRUNC) | OFlags::WRONLY | OFlags::APPEND;
        (lacks && !self.is_full(nodes)).then(|| (Arc::clone(&file.fd), flags))
    }

    pub(super) fn set_appender(&mut self, handle: Handle, slot: Slot, fd: OwnedFd) -> Result<()> {
        self.get_mut(handle, slot)?.appender = Appender::Opened(fd);
        self.appenders += 1;
        Ok(())
    }

    /// It is not to be asked for again.
    pub(super) fn refuse_appender(&mut self, handle: Handle, slot: Slot) -> Result<()> {
        self.get_mut(handle, slot)?.appender = Appender::Refused;
        Ok(())
    }

    /// Any descriptor that is open for a node.
    pub(super) fn any_of(&self, first: Option<u32>) -> Option<Arc<OwnedFd>> {
        let (_, file) = self.files.get(first? as usize)?;
        file.as_ref().map(|file| Arc::clone(&file.fd))
    }

    pub(super) fn remove(&mut self, nodes: &mut Nodes, handle: Handle, slot: Slot) -> Result<OpenFile> {
        self.get(handle, slot)?;
        let (_, index) = split(handle);
        let (generation, file) = self.files.get_mut(index).ok_or(Errno::EBADF)?;
        let file = file.take().ok_or(Errno::EBADF)?;
        *generation = generation.wrapping_add(1).max(1);
        self.free.push(u32::try_from(index).unwrap_or(u32::MAX));
        let appenders = usize::from(matches!(file.appender, Appender::Opened(_)));
        self.appenders = self.appenders.saturating_sub(appenders);
        if let Some(next) = file.next.and_then(|next| self.at_mut(next)) {
            next.previous = file.previous;
        }
        let node = nodes.get_mut(slot)?;
        node.direct_writers = node.direct_writers.saturating_sub(file.direct_writer.into());
        let mappable = may_be_mapped_to_write(file.flags);
        node.mappable_writers = node.mappable_writers.saturating_sub(mappable.into());
        match file.previous.and_then(|previous| self.at_mut(previous)) {
            Some(previous) => previous.next = file.next,
            None => node.open = file.next,
        }
        Ok(file)
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut OpenFile> {
        self.files.get_mut(index as usize)?.1.as_mut()
    }
}

/// Whether a file that is open with these flags allows mappings that are written. It stays open as long as there is one.
fn may_be_mapped_to_write(flags: OFlags) -> bool {
    flags.contains(OFlags::RDWR)
}

fn split(handle: Handle) -> (u32, usize) {
    let generation = u32::try_from(handle.0 >> 32).unwrap_or(0);
    (
        generation,
        usize::try_from(handle.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX),
    )
}
