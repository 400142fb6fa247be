//! The entries of a folder in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::NodeId;

/// The number of the first entry: in a listing 1 is behind `.`, and 2 is behind `..`.
const FIRST: u64 = 3;

/// Entries by name, and in the order in which they came. The number of an entry is its place in listings, and stays when others
/// come and go.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) parent: NodeId,
    numbers: BTreeMap<Arc<[u8]>, u64>,
    entries: BTreeMap<u64, (Arc<[u8]>, NodeId)>,
    next: u64,
}

impl Folder {
    pub(super) fn new(parent: NodeId) -> Self {
        Self {
            parent,
            numbers: BTreeMap::new(),
            entries: BTreeMap::new(),
            next: FIRST,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<NodeId> {
        let (_, node) = self.entries.get(self.numbers.get(name)?)?;
        Some(*node)
    }

    /// A name that is there already leads to `node` then, and keeps its place.
    pub(super) fn insert(&mut self, name: &[u8], node: NodeId) {
        let known = self.numbers.get(name);
        if let Some((_, old)) = known.and_then(|number| self.entries.get_mut(number)) {
            *old = node;
            return;
        }
        let name: Arc<[u8]> = name.into();
        self.numbers.insert(Arc::clone(&name), self.next);
        self.entries.insert(self.next, (name, node));
        self.next += 1;
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<NodeId> {
        let number = self.numbers.remove(name)?;
        let (_, node) = self.entries.remove(&number)?;
        Some(node)
    }

    /// What comes behind `offset`, the newest first: what is added while a folder is listed does not come up, so a program that
    /// makes or renames something for each name gets to an end.
    pub(super) fn behind(&self, offset: u64) -> impl Iterator<Item = (u64, &[u8], NodeId)> {
        let end = if offset < FIRST {
            Bound::Unbounded
        } else {
            Bound::Excluded(offset)
        };
        let entries = self.entries.range((Bound::Unbounded, end)).rev();
        entries.map(|(number, (name, node))| (*number, &**name, *node))
    }
}
