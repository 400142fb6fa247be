//! Answers to control requests: one slot for each port that waits for one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::errno::Errno;
use crate::ids::ProxyId;
use crate::state::ReplyState;
use crate::wire::{Reply, port};

/// One request that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Where the answer goes.
    pub(crate) reply_port: u32,
    /// Where the request was sent to.
    pub(crate) control_port: u32,
    serial: u64,
}

#[derive(Debug)]
struct Slot {
    serial: u64,
    control_port: u32,
    reply: Option<Reply>,
    announces: Option<Announced>,
}

/// A connection that the answer to an ACCEPT tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) listener: ProxyId,
    pub(crate) inbound: ProxyId,
}

#[derive(Debug)]
pub(crate) struct Replies {
    slots: BTreeMap<u32, Slot>,
    ready: VecDeque<Ticket>,
    next_serial: u64,
    max: usize,
}

impl Replies {
    pub(crate) fn new(max: usize) -> Replies {
        Replies {
            slots: BTreeMap::new(),
            ready: VecDeque::new(),
            next_serial: 0,
            max,
        }
    }

    /// A request came from `reply_port`. One that was not answered is forgotten: its caller was interrupted, and
    /// would take our answer for that of this one. `None` when too many wait.
    pub(crate) fn begin(&mut self, reply_port: u32, control_port: u32) -> Option<Ticket> {
        self.forget(reply_port);
        (self.slots.len() < self.max).then(|| self.reserve(reply_port, control_port))
    }

    /// The same without a limit.
    pub(crate) fn reserve(&mut self, reply_port: u32, control_port: u32) -> Ticket {
        self.next_serial += 1;
        let serial = self.next_serial;
        let slot = Slot {
            serial,
            control_port,
            reply: None,
            announces: None,
        };
        self.slots.insert(reply_port, slot);
        Ticket {
            reply_port,
            control_port,
            serial,
        }
    }

    /// Answers a request, unless it was forgotten.
    pub(crate) fn answer(&mut self, ticket: Ticket, reply: Reply) {
        if let Some(slot) = self.slots.get_mut(&ticket.reply_port)
            && slot.serial == ticket.serial
            && slot.reply.is_none()
        {
            slot.reply = Some(reply);
            self.ready.push_back(ticket);
        }
    }

    /// Answers a request with an error.
    pub(crate) fn refuse(&mut self, ticket: Ticket, errno: Errno) {
        self.answer(ticket, refusal(ticket.control_port, errno));
    }

    /// Answers an ACCEPT that is open.
    pub(crate) fn announce(&mut self, ticket: Ticket, announced: Announced) {
        if let Some(slot) = self.slots.get_mut(&ticket.reply_port) {
            slot.announces = Some(announced);
        }
        self.answer(ticket, Reply::Result(0));
    }

    /// Takes back an answer that was not sent: its caller asks again. Gives what it was to tell of.
    pub(crate) fn withdraw(&mut self, reply_port: u32) -> Option<Announced> {
        let announced = self.slots.get(&reply_port)?.announces;
        self.forget(reply_port);
        announced
    }

    /// No answer will come.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        if self
            .slots
            .get(&ticket.reply_port)
            .is_some_and(|slot| slot.serial == ticket.serial)
        {
            self.forget(ticket.reply_port);
        }
    }

    fn forget(&mut self, reply_port: u32) {
        if self.slots.remove(&reply_port).is_some_and(|slot| slot.reply.is_some()) {
            self.ready.retain(|ticket| ticket.reply_port != reply_port);
        }
    }

    /// Whether an answer to `ticket` is still wanted.
    pub(crate) fn is_open(&self, ticket: Ticket) -> bool {
        self.slots
            .get(&ticket.reply_port)
            .is_some_and(|slot| slot.serial == ticket.serial)
    }

    pub(crate) fn next(&mut self) -> Option<(Ticket, Reply)> {
        let ticket = self.ready.pop_front()?;
        let reply = self.slots.remove(&ticket.reply_port)?.reply?;
        Some((ticket, reply))
    }

    /// All answers that are due, those that are undecided as ECONNABORTED. What waits at one of the `pending` ports goes
    /// on waiting.
    pub(crate) fn save(
        &self,
        pending: &BTreeSet<u32>,
        listener_port: impl Fn(ProxyId) -> Option<u32>,
    ) -> Vec<ReplyState> {
        let due = self
            .slots
            .iter()
            .filter(|(reply_port, _)| !pending.contains(reply_port));
        due.map(|(&reply_port, slot)| ReplyState {
            reply_port,
            control_port: slot.control_port,
            reply: slot
                .reply
                .clone()
                .unwrap_or(refusal(slot.control_port, Errno::ECONNABORTED)),
            accepted_at: slot.announces.and_then(|announced| listener_port(announced.listener)),
        })
        .collect()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// An error as the answer to a request to this port.
fn refusal(control_port: u32, errno: Errno) -> Reply {
    match control_port {
        port::GETNAME => Reply::Name(Err(errno.reply())),
        _ => Reply::Result(errno.reply()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_request_on_a_port_cancels_the_first_answer() {
        let mut replies = Replies::new(4);
        let first = replies.begin(5000, 1025).unwrap();
        let second = replies.begin(5000, 1026).unwrap();
        replies.answer(first, Reply::Result(-1));
        assert_eq!(replies.next(), None);
        replies.answer(second, Reply::Result(0));
        replies.answer(second, Reply::Result(-2));
        assert_eq!(replies.next(), Some((second, Reply::Result(0))));
        assert_eq!(replies.next(), None);
    }

    #[test]
    fn request_after_an_unsent_answer_replaces_it() {
        let mut replies = Replies::new(1);
        let first = replies.begin(5000, 1025).unwrap();
        replies.answer(first, Reply::Result(-1));
        let second = replies.begin(5000, 1025).unwrap();
        assert_eq!(replies.next(), None);
        assert!(replies.is_open(second) && !replies.is_open(first));
    }

    #[test]
    fn requests_beyond_the_limit_get_no_slot() {
        let mut replies = Replies::new(2);
        assert!(replies.begin(1, 1025).is_some() && replies.begin(2, 1025).is_some());
        assert!(replies.begin(3, 1025).is_none());
    }
}
