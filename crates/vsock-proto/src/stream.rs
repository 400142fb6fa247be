//! One stream between a guest and a host socket: credit, half-closes, and what is to be said next.

use bitflags::bitflags;

use crate::credit::{RxWindow, TxCredit, Violation};
use crate::wire::{Header, Op, Shutdown};

bitflags! {
    /// What is to be said to the guest, besides data. One bit each, so nothing queues up.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Pending: u8 {
        const REQUEST = 1;
        const RESPONSE = 2;
        const CREDIT_UPDATE = 4;
        const CREDIT_REQUEST = 8;
        const SHUTDOWN = 16;
    }
}

/// What a packet of the guest means for the muxer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// So many bytes are to go to the host.
    Data(u32),
    /// The guest accepted.
    Opened,
    /// The guest broke the protocol.
    Reset,
}

/// What is to be done with the host socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostStep {
    ShutdownRead,
    ShutdownWrite,
    /// Both sides are done: close it and reset the guest's socket, which waits for that.
    Finish,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) window: RxWindow,
    pub(crate) credit: TxCredit,
    pending: Pending,
    open: bool,
    guest_done: Shutdown,
    /// What the host socket was told of `guest_done`.
    host_told: Shutdown,
    host_done: Shutdown,
    released: bool,
    /// The guest's kernel knows it no more.
    orphan: bool,
    /// What the host had taken when that was last looked at.
    taken: u32,
    credit_requested: bool,
}

impl Stream {
    /// The guest asked for it, with this packet, and the host has accepted.
    pub(crate) fn responding(window: u32, buf_alloc: u32, fwd_cnt: u32) -> Result<Stream, Violation> {
        let mut stream = Stream::new(window, Pending::RESPONSE, true);
        stream.credit.update(buf_alloc, fwd_cnt)?;
        Ok(stream)
    }

    /// The host asked for it.
    pub(crate) fn requesting(window: u32) -> Stream {
        Stream::new(window, Pending::REQUEST, false)
    }

    fn new(window: u32, pending: Pending, open: bool) -> Stream {
        Stream {
            window: RxWindow::new(window),
            credit: TxCredit::new(),
            pending,
            open,
            guest_done: Shutdown::empty(),
            host_told: Shutdown::empty(),
            host_done: Shutdown::empty(),
            released: false,
            orphan: false,
            taken: 0,
            credit_requested: false,
        }
    }

    /// A packet for this stream came; RST and REQUEST are not for here.
    pub(crate) fn packet(&mut self, header: &Header) -> Step {
        if self.open == (header.op == Op::Response) {
            return Step::Reset;
        }
        if self.credit.update(header.buf_alloc, header.fwd_cnt).is_err() {
            return Step::Reset;
        }
        match header.op {
            Op::Response => {
                self.open = true;
                return Step::Opened;
            }
            Op::Rw => return self.data(header.len),
            Op::CreditRequest => self.pending |= Pending::CREDIT_UPDATE,
            Op::Shutdown => self.guest_done |= Shutdown::from_bits_truncate(header.flags),
            _ => {}
        }
        Step::Nothing
    }

    fn data(&mut self, len: u32) -> Step {
        if self.guest_done.contains(Shutdown::SEND) || self.window.received(len).is_err() {
            return Step::Reset;
        }
        if self.host_done.contains(Shutdown::RECEIVE) {
            self.flushed(len);
            return Step::Nothing;
        }
        if len == 0 { Step::Nothing } else { Step::Data(len) }
    }

    /// The host took `len` bytes.
    pub(crate) fn flushed(&mut self, len: u32) {
        self.window.flushed(len);
        if self.window.report_due(self.credit.peer_buf_alloc()) {
            self.pending |= Pending::CREDIT_UPDATE;
        }
    }

    /// The host takes no more: what it did not take is dropped, as a socket of the guest's own would.
    pub(crate) fn host_deaf(&mut self) {
        self.host_done |= Shutdown::RECEIVE;
        self.flushed(u32::MAX);
        self.tell_shutdown();
    }

    /// The host sends no more.
    pub(crate) fn host_eof(&mut self) {
        self.host_done |= Shutdown::SEND;
        self.tell_shutdown();
    }

    fn tell_shutdown(&mut self) {
        if !self.host_done.is_all() {
            self.pending |= Pending::SHUTDOWN;
        }
    }

    /// The program closed the socket; its SHUTDOWN follows.
    pub(crate) fn release(&mut self) {
        self.released = true;
    }

    /// The guest's kernel has forgotten it: nothing more is said, and what it had sent is passed on.
    pub(crate) fn orphan(&mut self) {
        self.orphan = true;
        self.guest_done = Shutdown::all();
    }

    /// Whether the host has taken anything since this was last asked.
    pub(crate) fn has_progressed(&mut self) -> bool {
        let taken = self.window.fwd_cnt();
        std::mem::replace(&mut self.taken, taken) != taken
    }

    /// What is to be done with the host socket, one step a call.
    pub(crate) fn host_step(&mut self) -> Option<HostStep> {
        // As nearly always: neither side has ended anything.
        if self.guest_done.is_empty() && self.host_done.is_empty() {
            return None;
        }
        let flushed = self.window.unflushed() == 0;
        if (self.guest_done.is_all() && flushed) || self.host_done.is_all() {
            return Some(HostStep::Finish);
        }
        let untold = self.guest_done - self.host_told;
        if untold.contains(Shutdown::SEND) && flushed && !self.host_done.contains(Shutdown::RECEIVE) {
            self.host_told |= Shutdown::SEND;
            return Some(HostStep::ShutdownWrite);
        }
        if untold.contains(Shutdown::RECEIVE) && !self.guest_done.is_all() {
            self.host_told |= Shutdown::RECEIVE;
            return Some(HostStep::ShutdownRead);
        }
        None
    }

    /// Whether the guest is through with it and only bytes for the host are left.
    pub(crate) fn is_closing(&self) -> bool {
        self.released || self.guest_done.is_all()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the guest was given its first packet.
    pub(crate) fn is_announced(&self) -> bool {
        !self.pending.intersects(Pending::REQUEST | Pending::RESPONSE)
    }

    /// Whether bytes from the host are of use, credit aside.
    pub(crate) fn wants_data(&self) -> bool {
        let deaf = self.guest_done.contains(Shutdown::RECEIVE) || self.host_done.contains(Shutdown::SEND);
        self.open && !self.released && !deaf
    }

    /// Asks the guest for credit, once until there was some. True if that is new.
    pub(crate) fn request_credit(&mut self) -> bool {
        if self.credit_requested {
            return false;
        }
        self.credit_requested = true;
        self.pending |= Pending::CREDIT_REQUEST;
        true
    }

    /// `len` bytes of the host's go out in one packet.
    #[inline]
    pub(crate) fn sent(&mut self, len: u32) {
        self.credit.sent(len);
        self.credit_requested = false;
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.orphan && !self.pending.is_empty()
    }

    /// What to say next: operation and flags.
    pub(crate) fn take_pending(&mut self) -> Option<(Op, Shutdown)> {
        let next = self.pending.iter().next().filter(|_| !self.orphan)?;
        self.pending -= next;
        let op = match next {
            Pending::REQUEST => Op::Request,
            Pending::RESPONSE => Op::Response,
            Pending::CREDIT_UPDATE => Op::CreditUpdate,
            Pending::CREDIT_REQUEST => Op::CreditRequest,
            _ => return Some((Op::Shutdown, self.host_done)),
        };
        Some((op, Shutdown::empty()))
    }

    /// `buf_alloc` and `fwd_cnt` for a packet that goes out now; it stands for a credit update too.
    #[inline]
    pub(crate) fn report(&mut self) -> (u32, u32) {
        self.pending -= Pending::CREDIT_UPDATE;
        self.window.report()
    }
}
