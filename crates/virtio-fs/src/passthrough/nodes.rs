//! The inodes that the guest knows.
//!
//! A node keeps what is needed to find its inode again: a descriptor while that is cached, a file handle where the host
//! gives them out, and the name under which it was last seen. A node ID holds the number of its slot and how often the
//! slot was used, so an ID from before a FORGET finds nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::caching::Others;
use super::fd_cache::Place as CachePlace;
use super::short_bytes::ShortBytes;
use super::stat::{Key, Stat};
use crate::errno::{Errno, Result};
use crate::sys::FileHandle;
use crate::{FileKind, NodeId, Timestamp};

/// The slot of a node.
pub(super) type Slot = u32;

/// The root's slot. It is never freed.
pub(super) const ROOT: Slot = 0;

/// Folders deeper than this are not found again once their descriptors are given up. A path of the host has at most 2048
/// components, so only programs that go down step by step get there.
const MAX_DEPTH: usize = 4096;

/// A folder and a name in it.
#[derive(Debug)]
struct Place {
    parent: Slot,
    name: ShortBytes,
}

/// One inode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Key,
    /// Where the host tells it and an inode has the same one all its life.
    btime: Option<Timestamp>,
    pub(super) kind: FileKind,
    /// Lookups that the guest has not taken back.
    lookups: u64,
    /// Nodes that were last seen in this folder.
    children: u32,
    place: Option<Place>,
    /// A name of it was removed, perhaps the last. Then the host may give its number to a new inode, even within one step
    /// of the clock, so that both have one time of birth.
    unnamed: bool,
    pub(super) file_handle: Option<FileHandle>,
    pub(super) cached: Option<CachePlace>,
    /// For an inode that has lost a name, perhaps the last; see `kept`.
    pub(super) kept: Option<Arc<OwnedFd>>,
    /// The first of this node's open files.
    pub(super) open: Option<u32>,
    /// How many of them write around the guest's cache.
    pub(super) direct_writers: u32,
    /// How many of them allow mappings that are written.
    pub(super) mappable_writers: u32,
    /// What the file looked like when it was last opened, where that tells it from all later states; see
    /// `CachePolicy::Auto`.
    pub(super) seen: Option<Version>,
    /// What the guest's kernel takes for the size, in bytes: what it was told last, or made of it by itself.
    pub(super) size_told: u64,
}

impl Node {
    /// Whether `stat` is of this inode. A file system that reuses inode numbers gives the new inode another time of birth,
    /// but its clock moves in steps: the kind, which decides what may be opened, is compared for itself.
    pub(super) fn is(&self, stat: &Stat) -> bool {
        let born_then = self.btime.is_none_or(|btime| stat.attr.btime == Some(btime));
        self.key == stat.key && born_then && self.kind == stat.kind()
    }

    /// The folder where it was last seen.
    pub(super) fn parent(&self) -> Option<Slot> {
        self.place.as_ref().map(|place| place.parent)
    }

    /// Who in the guest has it open.
    pub(super) fn opened_by(&self) -> Others {
        match self.open {
            None => Others::Nobody,
            Some(_) if self.direct_writers > 0 => Others::DirectWriter,
            Some(_) => Others::Somebody,
        }
    }

    /// Whether `stat` is of this inode and cannot be of a new one with its number. An inode that is held is not gone.
    fn is_surely(&self, stat: &Stat) -> bool {
        let held = self.cached.is_some() || self.kept.is_some() || self.open.is_some();
        self.is(stat) && (held || !self.unnamed)
    }
}

/// What tells whether a file has changed.
pub(super) type Version = (u64, Timestamp, Timestamp);

/// All nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    slots: Vec<(u32, Option<Box<Node>>)>,
    free: Vec<Slot>,
    by_key: HashMap<Key, Slot, RandomState>,
    /// Slots by the hash of their place. Two places with one hash would cost the older one its entry: renaming it would
    /// then go unnoticed, and the guest gets ESTALE and looks the name up again.
    by_place: HashMap<u64, Slot, BuildHasherDefault<Hashed>>,
    hasher: RandomState,
    max: usize,
    /// Nodes that may have lost the last that referred to them; see [`take_unused`](Self::take_unused).
    suspects: Vec<Slot>,
    /// Nodes with a descriptor in [`Node::kept`].
    kept: usize,
    /// The roots of mounts where an inode's time of birth changes.
    reborn: Vec<Key>,
}

impl Nodes {
    /// With the root alone.
    pub(super) fn new(root: &Stat, max: usize) -> Self {
        let mut nodes = Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            by_place: HashMap::default(),
            hasher: RandomState::default(),
            max: max.clamp(1, u32::MAX as usize),
            suspects: Vec::new(),
            kept: 0,
            reborn: Vec::new(),
        };
        nodes.add(root, 0);
        nodes
    }

    /// Whether inodes are born again on the mount of `root`: overlayfs shows the time of birth of the file that holds the data, which is
    /// another one once somebody has written to it.
    pub(super) fn set_reborn(&mut self, root: &Stat, reborn: bool) {
        self.reborn.retain(|of| !of.is_on_mount_of(&root.key));
        if reborn {
            self.reborn.push(root.key);
        }
        if let Some(node) = self.with_key(root.key).and_then(|slot| self.get_mut(slot).ok()) {
            node.btime = root.attr.btime.filter(|_| !reborn);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// Whether this node is what [`remember`](Self::remember) finds for its inode.
    pub(super) fn is_found(&self, slot: Slot) -> bool {
        self.get(slot)
            .is_ok_and(|node| self.by_key.get(&node.key) == Some(&slot))
    }

    /// Forgets all but the root.
    pub(super) fn clear(&mut self) {
        let root = self.slots.drain(..).next();
        self.free.clear();
        self.by_place.clear();
        self.by_key.clear();
        self.suspects.clear();
        self.kept = 0;
        if let Some((generation, Some(mut node))) = root {
            node.children = 0;
            node.open = None;
            node.direct_writers = 0;
            node.mappable_writers = 0;
            node.cached = None;
            self.by_key.insert(node.key, ROOT);
            self.slots.push((generation, Some(node)));
        }
    }

    pub(super) fn id(&self, slot: Slot) -> NodeId {
        let generation = self.slots.get(slot as usize).map_or(0, |(generation, _)| *generation);
        NodeId(u64::from(generation) << 32 | (u64::from(slot) + 1))
    }

    /// The slot of a node ID.
    pub(super) fn slot(&self, id: NodeId) -> Result<Slot> {
        let generation = u32::try_from(id.0 >> 32).unwrap_or(0);
        let slot = u32::try_from(id.0 & u64::from(u32::MAX))
            .unwrap_or(0)
            .checked_sub(1)
            .ok_or(Errno::ESTALE)?;
        match self.slots.get(slot as usize) {
            Some((is, Some(_))) if *is == generation => Ok(slot),
            _ => Err(Errno::ESTALE),
        }
    }

    pub(super) fn get(&self, slot: Slot) -> Result<&Node> {
        self.slots
            .get(slot as usize)
            .and_then(|(_, node)| node.as_deref())
            .ok_or(Errno::ESTALE)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Result<&mut Node> {
        self.slots
            .get_mut(slot as usize)
            .and_then(|(_, node)| node.as_deref_mut())
            .ok_or(Errno::ESTALE)
    }

    /// The node of what had this key when it was seen last.
    pub(super) fn with_key(&self, key: Key) -> Option<Slot> {
        self.by_key.get(&key).copied()
    }

    /// Counts one lookup of what was seen, in `parent` as `name`, or without a name.
    ///
    /// # Errors
    /// ENFILE when the table is full.
    #[inline]
    pub(super) fn remember(&mut self, stat: &Stat, place: Option<(Slot, &[u8])>) -> Result<Slot> {
        let known = self.with_key(stat.key);
        let known = known.filter(|slot| self.get(*slot).is_ok_and(|node| node.is_surely(stat)));
        let slot = match known {
            Some(slot) => slot,
            None if self.is_full() => return Err(Errno::ENFILE),
            None => self.add(stat, 0),
        };
        let node = self.get_mut(slot)?;
        node.lookups = node.lookups.saturating_add(1);
        if let Some((parent, name)) = place {
            self.set_place(slot, parent, name);
            self.named_again(slot);
        }
        Ok(slot)
    }

    fn add(&mut self, stat: &Stat, lookups: u64) -> Slot {
        let reborn = self.reborn.iter().any(|root| root.is_on_mount_of(&stat.key));
        let node = Box::new(Node {
            key: stat.key,
            btime: stat.attr.btime.filter(|_| !reborn),
            kind: stat.kind(),
            lookups,
            children: 0,
            place: None,
            unnamed: false,
            file_handle: None,
            cached: None,
            kept: None,
            open: None,
            direct_writers: 0,
            mappable_writers: 0,
            seen: None,
            size_told: stat.attr.size,
        });
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.1 = Some(node);
        }
        self.by_key.insert(stat.key, slot);
        slot
    }

    /// The inode is gone: what looks the same from now on is another one.
    pub(super) fn lost(&mut self, slot: Slot) {
        let key = self.get(slot).map(|node| node.key);
        if let Ok(key) = key {
            remove_own(&mut self.by_key, key, slot);
        }
    }

    /// Takes lookups back.
    pub(super) fn forget(&mut self, slot: Slot, count: u64) {
        if let Ok(node) = self.get_mut(slot) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        self.suspects.push(slot);
    }

    /// The guest was told how large a file is.
    pub(super) fn told_size(&mut self, slot: Slot, size: u64) {
        if let Ok(node) = self.get_mut(slot) {
            node.size_told = size;
        }
    }

    /// The guest has put something into a file up to `end`, and knows how large that makes it.
    pub(super) fn extended(&mut self, slot: Slot, end: u64) {
        if let Ok(node) = self.get_mut(slot) {
            node.size_told = node.size_told.max(end);
        }
    }

    /// An open file of a node was closed.
    pub(super) fn closed(&mut self, slot: Slot) {
        self.suspects.push(slot);
    }

    /// Takes a node out that nothing refers to any more. To be called until there is none: a folder may have waited only
    /// for what was in it.
    pub(super) fn take_unused(&mut self) -> Option<(Slot, Box<Node>)> {
        let unused = |node: &Node| node.lookups == 0 && node.children == 0 && node.open.is_none();
        let slot = loop {
            let slot = self.suspects.pop()?;
            if slot != ROOT && self.get(slot).is_ok_and(unused) {
                break slot;
            }
        };
        self.unset_place(slot);
        let (generation, node) = self.slots.get_mut(slot as usize)?;
        let node = node.take()?;
        self.kept = self.kept.saturating_sub(node.kept.is_some().into());
        *generation = generation.wrapping_add(1) & 0x7fff_ffff;
        self.free.push(slot);
        remove_own(&mut self.by_key, node.key, slot);
        Some((slot, node))
    }

    fn place_hash(&self, parent: Slot, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    fn set_place(&mut self, slot: Slot, parent: Slot, name: &[u8]) {
        let same = |place: &Place| place.parent == parent && *place.name == *name;
        if slot == ROOT || self.get(slot).is_ok_and(|node| node.place.as_ref().is_some_and(same)) {
            return;
        }
        let is_folder = self.get(slot).is_ok_and(|node| node.kind == FileKind::Directory);
        if is_folder && self.is_within(parent, slot) {
            // The host moved folders around: what was the parent is now beneath. No path may run in circles.
            return;
        }
        self.unset_place(slot);
        let hash = self.place_hash(parent, name);
        if let Ok(node) = self.get_mut(slot) {
            node.place = Some(Place {
                parent,
                name: ShortBytes::new(name),
            });
        }
        if let Ok(node) = self.get_mut(parent) {
            node.children = node.children.saturating_add(1);
        }
        self.by_place.insert(hash, slot);
    }

    fn unset_place(&mut self, slot: Slot) {
        let Some(place) = self.get_mut(slot).ok().and_then(|node| node.place.take()) else {
            return;
        };
        let hash = self.place_hash(place.parent, &place.name);
        remove_own(&mut self.by_place, hash, slot);
        if let Ok(parent) = self.get_mut(place.parent) {
            parent.children = parent.children.saturating_sub(1);
            self.suspects.push(place.parent);
        }
    }

    fn is_within(&self, slot: Slot, folder: Slot) -> bool {
        let mut at = slot;
        for _ in 0..MAX_DEPTH {
            if at == folder {
                return true;
            }
            match self.get(at).ok().and_then(|node| node.place.as_ref()) {
                Some(place) => at = place.parent,
                None => return false,
            }
        }
        true
    }

    /// The node that was last seen as `name` in `parent`.
    pub(super) fn child(&self, parent: Slot, name: &[u8]) -> Option<Slot> {
        let slot = *self.by_place.get(&self.place_hash(parent, name))?;
        let place = self.get(slot).ok()?.place.as_ref()?;
        (place.parent == parent && *place.name == *name).then_some(slot)
    }

    /// The name is gone.
    pub(super) fn unnamed(&mut self, parent: Slot, name: &[u8]) {
        if let Some(slot) = self.child(parent, name) {
            self.unset_place(slot);
            self.mark_unnamed(slot);
        }
    }

    fn mark_unnamed(&mut self, slot: Slot) {
        if let Ok(node) = self.get_mut(slot) {
            node.unnamed = true;
        }
    }

    /// An inode that was found while it was held is the one that it was, and has a name that leads to it.
    #[inline]
    fn named_again(&mut self, slot: Slot) {
        let found = |node: &&mut Node| node.unnamed && node.place.is_some();
        if let Some(node) = self.get_mut(slot).ok().filter(found) {
            node.unnamed = false;
            self.give_back(slot);
        }
    }

    /// How many nodes have a descriptor that is kept.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    pub(super) fn keep(&mut self, slot: Slot, fd: Arc<OwnedFd>) {
        if let Ok(node) = self.get_mut(slot)
            && node.kept.replace(fd).is_none()
        {
            self.kept += 1;
        }
    }

    pub(super) fn give_back(&mut self, slot: Slot) {
        let kept = self.get_mut(slot).ok().and_then(|node| node.kept.take());
        self.kept = self.kept.saturating_sub(kept.is_some().into());
    }

    /// A name was moved, over another one or in exchange for it.
    pub(super) fn moved(&mut self, from: (Slot, &[u8]), to: (Slot, &[u8]), exchange: bool) {
        let moved = self.child(from.0, from.1);
        let replaced = self.child(to.0, to.1);
        if moved.is_some() && moved == replaced {
            // A name that is moved onto itself stays where it is.
            return;
        }
        for slot in [moved, replaced].into_iter().flatten() {
            self.unset_place(slot);
        }
        if let Some(slot) = moved {
            self.set_place(slot, to.0, to.1);
        }
        match replaced {
            Some(slot) if exchange => self.set_place(slot, from.0, from.1),
            Some(slot) => self.mark_unnamed(slot),
            None => {}
        }
    }

    /// The folder and the name of a node.
    pub(super) fn place(&self, slot: Slot) -> Option<(Slot, &[u8])> {
        let place = self.get(slot).ok()?.place.as_ref()?;
        Some((place.parent, &place.name))
    }

    /// The nodes from `slot` up to, and without, the nearest folder that `is_base` accepts; and that folder.
    ///
    /// # Errors
    /// ESTALE when the place of a node on the way is not known, or when there is no end to it.
    pub(super) fn way_up(&self, slot: Slot, is_base: impl Fn(Slot) -> bool) -> Result<(Vec<Slot>, Slot)> {
        let mut way = Vec::new();
        let mut at = slot;
        while way.len() < MAX_DEPTH {
            let (parent, _) = self.place(at).ok_or(Errno::ESTALE)?;
            way.push(at);
            if is_base(parent) {
                return Ok((way, parent));
            }
            at = parent;
        }
        Err(Errno::ESTALE)
    }
}

/// Removes what is known under `key` if that is `slot`. To put the wrong one back is rare, and to look first costs as much
/// as to remove.
fn remove_own<K: Copy + Eq + Hash, S: BuildHasher>(map: &mut HashMap<K, Slot, S>, key: K, slot: Slot) {
    if let Some(other) = map.remove(&key)
        && other != slot
    {
        map.insert(key, other);
    }
}

/// For keys that are hashes already: each is its own.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Not for such keys; any function will do.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time of birth with the steps of the host's clock does not tell two inodes apart that follow one another.
    #[test]
    fn inode_of_another_kind_with_the_same_number_and_birth_is_another_one() {
        let folder = Stat::of(rustix::fs::CWD).unwrap();
        let mut nodes = Nodes::new(&folder, 9);
        let mut file = folder;
        file.key.ino = u64::MAX;
        file.attr.mode = libc::S_IFREG | 0o600;
        let slot = nodes.remember(&file, None).unwrap();
        for kind in [
            libc::S_IFCHR,
            libc::S_IFBLK,
            libc::S_IFIFO,
            libc::S_IFSOCK,
            libc::S_IFDIR,
        ] {
            let mut other = file;
            other.attr.mode = kind | 0o600;
            assert!(!nodes.get(slot).unwrap().is(&other), "{kind:o}");
            assert_ne!(nodes.remember(&other, None), Ok(slot), "{kind:o}");
        }
        assert!(nodes.get(slot).unwrap().is(&file));
    }

    #[test]
    fn lost_inode_is_not_found_by_its_number_again() {
        let folder = Stat::of(rustix::fs::CWD).unwrap();
        let mut nodes = Nodes::new(&folder, 9);
        let mut file = folder;
        file.key.ino = u64::MAX;
        let slot = nodes.remember(&file, None).unwrap();
        nodes.lost(slot);
        let again = nodes.remember(&file, None).unwrap();
        assert_ne!(again, slot);
        // The end of the one does not take the other's entry.
        nodes.forget(slot, 1);
        assert!(nodes.take_unused().is_some_and(|(gone, _)| gone == slot));
        assert_eq!(nodes.remember(&file, None), Ok(again));
    }
}
