//! All proxies: by handle, by key, and in the order of their turns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::{Key, ProxyId};
use crate::mux::proxy::Proxy;
use crate::wire::SocketKind;

/// Host ports of our choice start here, far from any that a guest or a user chooses.
const FIRST_HOST_PORT: u32 = 0x4000_0000;

#[derive(Debug, Default)]
struct Slot {
    generation: u16,
    proxy: Option<Proxy>,
    /// The slot is in `urgent`. A property of the slot, so that the queue never holds more than there are slots.
    urgent: bool,
    /// The slot is in `data`.
    data: bool,
}

/// Which turn a proxy waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// To say something about the connection.
    Urgent,
    /// To send data.
    Data,
}

#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u16>,
    streams: BTreeMap<Key, ProxyId>,
    datagrams: BTreeMap<Key, ProxyId>,
    /// Proxies that nobody can name by their key any more.
    orphans: BTreeSet<ProxyId>,
    urgent: VecDeque<u16>,
    data: VecDeque<u16>,
    deadlines: BTreeSet<(Duration, ProxyId)>,
    next_host_port: u32,
    max: usize,
}

impl Table {
    pub(crate) fn new(max: usize) -> Table {
        Table {
            slots: Vec::new(),
            free: Vec::new(),
            streams: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            orphans: BTreeSet::new(),
            urgent: VecDeque::new(),
            data: VecDeque::new(),
            deadlines: BTreeSet::new(),
            next_host_port: FIRST_HOST_PORT,
            max: max.min(usize::from(ProxyId::SLOTS)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len() + self.datagrams.len() + self.orphans.len()
    }

    /// The most proxies that there can be.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Where the next choice of a host port begins.
    pub(crate) fn next_host_port(&self) -> u32 {
        self.next_host_port
    }

    /// Any number will do: one that is none of ours is as good as the first.
    pub(crate) fn set_next_host_port(&mut self, port: u32) {
        self.next_host_port = port.max(FIRST_HOST_PORT);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    fn keys(&mut self, kind: SocketKind) -> &mut BTreeMap<Key, ProxyId> {
        match kind {
            SocketKind::Stream => &mut self.streams,
            SocketKind::Datagram => &mut self.datagrams,
        }
    }

    pub(crate) fn find(&self, kind: SocketKind, key: Key) -> Option<ProxyId> {
        match kind {
            SocketKind::Stream => self.streams.get(&key).copied(),
            SocketKind::Datagram => self.datagrams.get(&key).copied(),
        }
    }

    /// The stream with this key, or else the datagram socket.
    pub(crate) fn find_any(&self, key: Key) -> Option<ProxyId> {
        self.find(SocketKind::Stream, key)
            .or_else(|| self.find(SocketKind::Datagram, key))
    }

    /// `None` when the table is full or the key is taken.
    pub(crate) fn insert(&mut self, proxy: Proxy) -> Option<ProxyId> {
        if self.is_full() || self.find(proxy.kind, proxy.key).is_some() {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u16::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot::default());
                index
            }
        };
        let (kind, key) = (proxy.kind, proxy.key);
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.proxy = Some(proxy);
        let id = ProxyId::new(index, slot.generation);
        self.keys(kind).insert(key, id);
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: ProxyId) -> Option<Proxy> {
        let slot = self.slot_mut(id)?;
        let proxy = slot.proxy.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(u16::try_from(id.slot()).ok()?);
        if !self.orphans.remove(&id) {
            self.keys(proxy.kind).remove(&proxy.key);
        }
        if let Some(at) = proxy.deadline {
            self.deadlines.remove(&(at, id));
        }
        Some(proxy)
    }

    #[inline]
    pub(crate) fn get(&self, id: ProxyId) -> Option<&Proxy> {
        self.slots
            .get(id.slot())
            .filter(|slot| slot.generation == id.generation())?
            .proxy
            .as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ProxyId) -> Option<&mut Proxy> {
        self.slot_mut(id)?.proxy.as_mut()
    }

    #[inline]
    fn slot_mut(&mut self, id: ProxyId) -> Option<&mut Slot> {
        self.slots
            .get_mut(id.slot())
            .filter(|slot| slot.generation == id.generation())
    }

    pub(crate) fn ids(&self) -> Vec<ProxyId> {
        let named = self.streams.values().chain(self.datagrams.values());
        named.chain(&self.orphans).copied().collect()
    }

    /// Frees a proxy's key for another one.
    pub(crate) fn orphan(&mut self, id: ProxyId) {
        let Some((kind, key)) = self.get(id).map(|proxy| (proxy.kind, proxy.key)) else {
            return;
        };
        if self.orphans.insert(id) {
            self.keys(kind).remove(&key);
        }
    }

    pub(crate) fn is_orphan(&self, id: ProxyId) -> bool {
        self.orphans.contains(&id)
    }

    /// Puts a proxy at the end of a queue, unless it waits there already.
    pub(crate) fn enqueue(&mut self, id: ProxyId, turn: Turn) {
        let Some(slot) = self.slot_mut(id) else { return };
        let waits = match turn {
            Turn::Urgent => &mut slot.urgent,
            Turn::Data => &mut slot.data,
        };
        let Ok(index) = u16::try_from(id.slot()) else { return };
        if !std::mem::replace(waits, true) {
            match turn {
                Turn::Urgent => self.urgent.push_back(index),
                Turn::Data => self.data.push_back(index),
            }
        }
    }

    /// Who has the next turn. It may have nothing to say any more.
    pub(crate) fn dequeue(&mut self, turn: Turn) -> Option<ProxyId> {
        loop {
            let index = match turn {
                Turn::Urgent => self.urgent.pop_front()?,
                Turn::Data => self.data.pop_front()?,
            };
            let slot = self.slots.get_mut(usize::from(index))?;
            match turn {
                Turn::Urgent => slot.urgent = false,
                Turn::Data => slot.data = false,
            }
            if slot.proxy.is_some() {
                return Some(ProxyId::new(index, slot.generation));
            }
        }
    }

    #[inline]
    pub(crate) fn has_turns(&self) -> bool {
        !self.urgent.is_empty() || !self.data.is_empty()
    }

    pub(crate) fn set_deadline(&mut self, id: ProxyId, at: Option<Duration>) {
        let Some(proxy) = self.get_mut(id) else { return };
        let old = std::mem::replace(&mut proxy.deadline, at);
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.deadlines.remove(&(old, id));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, id));
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// A proxy whose time has come; it has no deadline after that.
    pub(crate) fn take_expired(&mut self, now: Duration) -> Option<ProxyId> {
        let &(_, id) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.set_deadline(id, None);
        Some(id)
    }

    /// A host port that no live stream with this guest port has, and `reserved` does not refuse.
    pub(crate) fn choose_host_port(&mut self, guest_port: u32, reserved: impl Fn(u32) -> bool) -> u32 {
        loop {
            let host_port = self.next_host_port;
            self.next_host_port = match host_port.wrapping_add(1) {
                u32::MAX | 0..FIRST_HOST_PORT => FIRST_HOST_PORT,
                next => next,
            };
            let key = Key { guest_port, host_port };
            if !reserved(host_port) && !self.streams.contains_key(&key) {
                return host_port;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mux::Muxer;
    use crate::mux::proxy::{Origin, State};

    fn proxy(guest_port: u32) -> Proxy {
        let key = Key {
            guest_port,
            host_port: 52,
        };
        Muxer::new_proxy(key, SocketKind::Stream, Origin::RouteOut, State::Idle)
    }

    /// An event loop may report a socket that was closed meanwhile; its slot may be another's by then.
    #[test]
    fn handle_of_a_proxy_that_is_gone_means_nothing_to_the_next_in_its_slot() {
        let mut table = Table::new(4);
        let gone = table.insert(proxy(1)).unwrap();
        table.remove(gone);
        let next = table.insert(proxy(2)).unwrap();

        assert_eq!(next.slot(), gone.slot());
        assert!(table.get(gone).is_none() && table.get_mut(gone).is_none());
        table.enqueue(gone, Turn::Data);
        assert!(!table.has_turns());
        table.set_deadline(gone, Some(Duration::from_secs(1)));
        assert_eq!(table.next_deadline(), None);
        assert!(table.remove(gone).is_none());
        assert_eq!(table.get(next).unwrap().key.guest_port, 2);
    }
}
