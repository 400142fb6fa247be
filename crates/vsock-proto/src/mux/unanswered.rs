//! Connections to listeners of the guest that ended before it answered.
//!
//! Its kernel puts a connection into the listener's queue when it is asked for one, and takes it out for accept(2) alone. So its
//! answer counts, however late it comes.

use std::collections::VecDeque;

use crate::config::Limits;
use crate::ids::{Key, ProxyId};

/// As many as a guest can have been asked for in a usual ring.
const MOST: usize = 256;

/// How many connections may be in the queue of one listener that no ACCEPT was told of: a backlog, late answers, and answers
/// that were taken back.
pub(super) fn most_unannounced(limits: &Limits) -> usize {
    most_named(limits).saturating_add(limits.requests)
}

/// How many connections that have ended a guest may ask the names of: a crowd before a listener, all ended or answered late.
pub(super) fn most_named(limits: &Limits) -> usize {
    limits.backlog.saturating_add(MOST)
}

/// The last of them.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    list: VecDeque<(Key, ProxyId)>,
}

impl Unanswered {
    /// Adds one that came by this listener; by [`ProxyId::NOBODY`] if that is not known any more.
    pub(super) fn add(&mut self, key: Key, listener: ProxyId) {
        self.take(key);
        if self.list.len() >= MOST {
            self.list.pop_front();
        }
        self.list.push_back((key, listener));
    }

    /// Takes one out, and tells its listener.
    pub(super) fn take(&mut self, key: Key) -> Option<ProxyId> {
        let at = self.list.iter().position(|&(of, _)| of == key)?;
        self.list.remove(at).map(|(_, listener)| listener)
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }
}
