//! A bounded set of descriptors, the least recently used given up first.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Where in the cache a descriptor is. Valid until it is evicted.
pub(super) type Place = usize;

const NONE: usize = usize::MAX;

#[derive(Debug)]
struct Entry {
    /// What the descriptor belongs to, and the descriptor; `None` while the entry is free.
    held: Option<(u32, Arc<OwnedFd>)>,
    newer: usize,
    older: usize,
}

/// The cache: entries in a list from the newest to the oldest.
#[derive(Debug)]
pub(super) struct FdCache {
    entries: Vec<Entry>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    len: usize,
    capacity: usize,
}

impl FdCache {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            len: 0,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// The descriptor at `place`, now the newest.
    pub(super) fn get(&mut self, place: Place) -> Option<Arc<OwnedFd>> {
        let fd = Arc::clone(&self.entries.get(place)?.held.as_ref()?.1);
        if place != self.newest {
            self.unlink(place);
            self.link_newest(place);
        }
        Some(fd)
    }

    /// Adds a descriptor of `owner`. The caller makes room first, as what is evicted has to be told.
    pub(super) fn insert(&mut self, owner: u32, fd: Arc<OwnedFd>) -> Place {
        let entry = Entry {
            held: Some((owner, fd)),
            newer: NONE,
            older: NONE,
        };
        let place = match self.free.pop() {
            Some(place) => place,
            None => self.entries.len(),
        };
        match self.entries.get_mut(place) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
        self.len += 1;
        self.link_newest(place);
        place
    }

    /// Takes out the oldest: what it belongs to, and the descriptor.
    pub(super) fn evict(&mut self) -> Option<(u32, Arc<OwnedFd>)> {
        self.remove(self.oldest)
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<(u32, Arc<OwnedFd>)> {
        let held = self.entries.get_mut(place)?.held.take()?;
        self.unlink(place);
        self.free.push(place);
        self.len -= 1;
        Some(held)
    }

    fn unlink(&mut self, place: Place) {
        let Some(entry) = self.entries.get(place) else { return };
        let (newer, older) = (entry.newer, entry.older);
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: Place) {
        let was = std::mem::replace(&mut self.newest, place);
        match self.entries.get_mut(was) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
        if let Some(entry) = self.entries.get_mut(place) {
            entry.newer = NONE;
            entry.older = was;
        }
    }
}
