//! The last few keys of something.

use std::collections::{BTreeMap, VecDeque};

use crate::Key;

/// Keys that were added last. The oldest is forgotten for a new one, and each can be taken out without a look at the
/// others.
#[derive(Debug)]
pub(super) struct RecentKeys {
    most: usize,
    /// When each was added last.
    added: BTreeMap<Key, u64>,
    /// All that was added, in its order. What was taken out or added again stays until it is the oldest.
    order: VecDeque<(Key, u64)>,
    next: u64,
}

impl RecentKeys {
    /// Never more than `most`.
    pub(super) fn new(most: usize) -> RecentKeys {
        RecentKeys {
            most,
            added: BTreeMap::new(),
            order: VecDeque::new(),
            next: 0,
        }
    }

    pub(super) fn add(&mut self, key: Key) {
        if self.order.len() >= self.most
            && let Some((oldest, when)) = self.order.pop_front()
            && self.added.get(&oldest) == Some(&when)
        {
            self.added.remove(&oldest);
        }
        self.order.push_back((key, self.next));
        self.added.insert(key, self.next);
        self.next = self.next.wrapping_add(1);
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.added.remove(&key);
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.added.contains_key(&key)
    }

    pub(super) fn clear(&mut self) {
        self.added.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 4;

    fn key(guest_port: u32) -> Key {
        Key {
            guest_port,
            host_port: 620,
        }
    }

    proptest! {
        /// The naive model keeps a list of all that was added and looks through it.
        #[test]
        fn keys_are_those_added_last_and_not_removed_since(steps in proptest::collection::vec((0u32..6, any::<bool>()), 0..60)) {
            let mut recent = RecentKeys::new(MOST);
            let mut model: VecDeque<(u32, bool)> = VecDeque::new();
            for (port, add) in steps {
                if add {
                    recent.add(key(port));
                    model.push_back((port, true));
                    if model.len() > MOST {
                        model.pop_front();
                    }
                } else {
                    recent.remove(key(port));
                    model.iter_mut().filter(|(of, _)| *of == port).for_each(|(_, there)| *there = false);
                }
                for port in 0..6 {
                    prop_assert_eq!(recent.contains(key(port)), model.contains(&(port, true)), "{}", port);
                }
                prop_assert!(recent.order.len() <= MOST && recent.added.len() <= MOST);
            }
        }
    }
}
