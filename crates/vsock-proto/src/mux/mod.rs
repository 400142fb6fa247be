//! The muxer: all connections of one guest.

mod control;
mod host;
mod listeners;
mod packets;
mod proxy;
mod rate;
mod recent;
mod replies;
mod restore;
mod save;
mod table;
mod timers;
mod transmit;
mod unanswered;
mod windows;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::errno::Errno;
use crate::ids::{Key, ProxyId};
use crate::policy::{Hook, Question, Verdict, canonical};
use crate::stats::Stats;
use crate::stream::{HostStep, Stream};
use crate::wire::{Family, Reply, SocketKind, SocketName, port};

pub use packets::Received;
pub use replies::Ticket;
pub use transmit::{DatagramRead, MAX_TURN_PACKETS, StreamRead, Transmit};

use proxy::{Origin, Proxy, State, Waiter};
use rate::Rate;
use recent::RecentKeys;
use replies::Replies;
use table::{Table, Turn};
use transmit::StrayReset;
use unanswered::{Unanswered, most_named};
use windows::Windows;

/// Refused PROXY_CREATEs that are remembered, with the reason.
const MAX_TOMBSTONES: usize = 64;

/// What the caller is to do with host sockets. In order, after each input with its reports, and before the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a stream socket and connect it; then [`Muxer::connected`].
    Connect {
        /// For whom.
        id: ProxyId,
        /// Where to.
        to: SocketName,
    },
    /// Connect to what is configured for a vsock port; then [`Muxer::connected`].
    ConnectRoute {
        /// For whom.
        id: ProxyId,
        /// The port.
        port: u32,
    },
    /// Make a stream socket and listen with it; then [`Muxer::listening`].
    Listen {
        /// For whom.
        id: ProxyId,
        /// Where.
        at: SocketName,
        /// The length of the host's accept queue.
        backlog: u16,
    },
    /// Accept again on this listener.
    ResumeAccept {
        /// The listener.
        id: ProxyId,
    },
    /// Make a datagram socket that any peer can answer; then [`Muxer::datagram_opened`].
    OpenDatagram {
        /// For whom.
        id: ProxyId,
        /// Its family.
        family: Family,
    },
    /// Make a datagram socket, if there is none, and connect it; then [`Muxer::datagram_connected`].
    ConnectDatagram {
        /// For whom.
        id: ProxyId,
        /// Where to.
        to: SocketName,
    },
    /// Find out a socket's name; then [`Muxer::named`].
    QueryName {
        /// Whose.
        id: ProxyId,
        /// Its own instead of its peer's.
        own: bool,
        /// To be passed on.
        ticket: Ticket,
    },
    /// The stream is open: report when there is something to read.
    Opened {
        /// Which.
        id: ProxyId,
    },
    /// `shutdown(SHUT_WR)`; all bytes were written before.
    ShutdownWrite {
        /// Of which.
        id: ProxyId,
    },
    /// `shutdown(SHUT_RD)`.
    ShutdownRead {
        /// Of which.
        id: ProxyId,
    },
    /// Close the host socket, if there is one. The handle means nothing afterwards.
    Close {
        /// Which.
        id: ProxyId,
        /// The peer is to see a reset, since not all that was meant for it went out.
        abort: bool,
    },
}

/// All connections of one guest, as a state machine without I/O.
///
/// See the crate's documentation for the contract.
pub struct Muxer {
    config: Config,
    hook: Option<Box<dyn Hook>>,
    stats: Arc<Stats>,
    table: Table,
    replies: Replies,
    strays: VecDeque<StrayReset>,
    /// Streams that were reset last. What the guest sent before it saw that needs no second RST, which might meet its next
    /// stream with the same key.
    farewells: RecentKeys,
    unanswered: Unanswered,
    time_sync: Option<u64>,
    actions: VecDeque<Action>,
    /// Refused PROXY_CREATEs: the next request of each is told why.
    tombstones: VecDeque<(Key, Errno)>,
    /// Accepted connections that have ended and were not released. The guest's kernel may have them in its queue still, and
    /// its `accept(2)` fails if nobody tells it who they came from.
    departed: VecDeque<(Key, SocketName)>,
    listeners: usize,
    /// A listener waits for room in the table.
    listener_waits: bool,
    windows: Windows,
    connects: Rate,
}

impl Muxer {
    /// A muxer without connections.
    pub fn new(config: Config) -> Muxer {
        Muxer {
            table: Table::new(config.limits.proxies),
            replies: Replies::new(config.limits.requests),
            connects: Rate::new(config.limits.connects_per_second),
            config,
            hook: None,
            stats: Arc::default(),
            strays: VecDeque::new(),
            farewells: RecentKeys::new(transmit::MAX_FAREWELLS),
            unanswered: Unanswered::default(),
            time_sync: None,
            actions: VecDeque::new(),
            tombstones: VecDeque::new(),
            departed: VecDeque::new(),
            listeners: 0,
            listener_waits: false,
            windows: Windows::default(),
        }
    }

    /// With a say in each destination.
    #[must_use]
    pub fn with_hook(mut self, hook: Box<dyn Hook>) -> Muxer {
        self.hook = Some(hook);
        self
    }

    /// The counters, to be read at any time from anywhere.
    #[inline]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The set-up.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether there is something to be done.
    #[inline]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// What is to be done next; `None` when all is done.
    #[inline]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Proxies of all kinds.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of a live proxy.
    pub fn key(&self, id: ProxyId) -> Option<Key> {
        self.table.get(id).map(|proxy| proxy.key)
    }

    /// Sends the guest the host's clock, in nanoseconds since 1970, when there is a buffer. Its agent steps the
    /// guest's clock if that is far off (TSI specification, 11).
    pub fn send_time(&mut self, unix_nanos: u64) {
        self.time_sync = Some(unix_nanos);
    }

    /// The driver reset the device: drops all connections. Each gets its [`Action::Close`]; the set-up stays.
    pub fn reset(&mut self) {
        for id in self.table.ids() {
            self.remove(id);
            self.actions.push_back(Action::Close { id, abort: true });
        }
        self.replies = Replies::new(self.config.limits.requests);
        self.strays.clear();
        self.farewells.clear();
        self.unanswered.clear();
        self.tombstones.clear();
        self.departed.clear();
        self.time_sync = None;
    }

    /// The guest was told that its streams are gone (virtio 1.3, 5.10.6.7), and all that it had sent was taken: ends each that it
    /// knew of, since it will not speak of them again. One that it had closed goes on until all is passed on. Listeners and
    /// datagram sockets stay. A RST goes out for each all the same: one may have opened in the guest while it looked at the event.
    pub fn transport_reset(&mut self) {
        for id in self.table.ids() {
            let known = |stream: &&mut Stream| stream.is_announced() && !stream.is_closing();
            if let Some(stream) = self.stream_mut(id).filter(known) {
                let abort = !stream.is_open() || stream.window.unflushed() > 0;
                self.reset_stream(id, abort);
            }
        }
    }

    fn judge(&mut self, question: &Question<'_>) -> Verdict {
        let plain = canonical(question.name);
        let question = Question {
            name: &plain,
            ..question.clone()
        };
        let verdict = match self.config.policy.judge(&question) {
            Verdict::Allow => self.hook.as_mut().map_or(Verdict::Allow, |hook| hook.judge(&question)),
            other => other,
        };
        if matches!(verdict, Verdict::Deny(_)) {
            self.stats.denied.count();
        }
        verdict
    }

    /// Takes a proxy out of all tables, without a word to anybody.
    fn remove(&mut self, id: ProxyId) -> Option<Proxy> {
        let proxy = self.table.remove(id)?;
        match &proxy.state {
            State::Stream(stream) => self.release_window(stream),
            State::Listening(_) => self.listeners = self.listeners.saturating_sub(1),
            _ => {}
        }
        if let Some(peer) = &proxy.peer {
            if self.departed.len() >= most_named(&self.config.limits) {
                self.departed.pop_front();
            }
            self.departed.push_back((proxy.key, peer.clone()));
        }
        self.resume_listeners();
        Some(proxy)
    }

    fn take_window(&mut self) -> Option<u32> {
        let window = self.windows.take(&self.config.limits);
        if window.is_none() {
            self.stats.over_limit.count();
        }
        window
    }

    fn release_window(&mut self, stream: &Stream) {
        self.windows.give_back(stream.window.buf_alloc());
    }

    fn stream_mut(&mut self, id: ProxyId) -> Option<&mut Stream> {
        match &mut self.table.get_mut(id)?.state {
            State::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// Ends a stream: its host socket is to be closed, and the guest gets a RST.
    fn reset_stream(&mut self, id: ProxyId, abort: bool) {
        if self.table.is_orphan(id) {
            return self.drop_proxy(id, abort);
        }
        self.before_end(id, Some(Errno::ECONNRESET));
        let Some(proxy) = self.table.get_mut(id) else { return };
        let had_socket = !matches!(proxy.state, State::Idle | State::Closed);
        let old = std::mem::replace(&mut proxy.state, State::Closed);
        if let State::Stream(stream) = old {
            self.release_window(&stream);
        }
        if had_socket {
            self.actions.push_back(Action::Close { id, abort });
        }
        self.table.set_deadline(id, None);
        self.table.enqueue(id, Turn::Urgent);
    }

    /// Ends a proxy without a word to the guest.
    fn drop_proxy(&mut self, id: ProxyId, abort: bool) {
        self.before_end(id, None);
        self.end_listening(id);
        if let Some(proxy) = self.remove(id)
            && !matches!(proxy.state, State::Idle | State::Closed)
        {
            self.actions.push_back(Action::Close { id, abort });
        }
    }

    /// The guest's kernel has forgotten a socket. If its program had closed it before, what it sent is still passed on,
    /// as by the kernel of any machine, and the key is free for another socket. False if there is nothing to pass on.
    fn orphan(&mut self, id: ProxyId) -> bool {
        let unflushed = |stream: &&mut Stream| stream.is_closing() && stream.window.unflushed() > 0;
        let Some(stream) = self.stream_mut(id).filter(unflushed) else {
            return false;
        };
        stream.orphan();
        self.table.orphan(id);
        true
    }

    /// A stream that the guest has closed ends when its last bytes are passed on, or none of them for a while.
    fn linger(&mut self, id: ProxyId, now: Duration) {
        if let Some(stream) = self.stream_mut(id) {
            stream.has_progressed();
        }
        let linger = self.config.limits.linger;
        self.set_timeout(id, now, linger);
    }

    /// Settles what others expect from a proxy that ends: who waits for a CONNECT is told `why`, or nothing if it is
    /// the guest itself that ends it.
    fn before_end(&mut self, id: ProxyId, why: Option<Errno>) {
        let Some(proxy) = self.table.get(id) else { return };
        let ticket = match &proxy.state {
            State::Connecting(Waiter::Control(ticket)) => Some(*ticket),
            State::Datagram(datagram) => datagram.connect_ticket,
            _ => None,
        };
        match (ticket, why) {
            (Some(ticket), Some(errno)) => self.replies.refuse(ticket, errno),
            (Some(ticket), None) => self.replies.cancel(ticket),
            (None, _) => {}
        }
        match (&proxy.state, proxy.origin) {
            (State::Stream(stream), Origin::Accepted { listener, .. }) if !stream.is_open() => {
                self.unanswered.add(proxy.key, listener);
                self.stats.connections_refused.count();
                self.accept_settled(listener, None);
            }
            (State::Stream(stream), _) if !stream.is_open() => self.stats.connections_refused.count(),
            _ => {}
        }
    }

    /// After any change of a stream: passes shutdowns on, and queues it for what it has to say.
    fn settle(&mut self, id: ProxyId) {
        let Some(proxy) = self.table.get_mut(id) else { return };
        let State::Stream(stream) = &mut proxy.state else {
            return;
        };
        while let Some(step) = stream.host_step() {
            match step {
                HostStep::ShutdownRead => self.actions.push_back(Action::ShutdownRead { id }),
                HostStep::ShutdownWrite => self.actions.push_back(Action::ShutdownWrite { id }),
                HostStep::Finish => return self.reset_stream(id, false),
            }
        }
        let readable = proxy.readable && stream.wants_data();
        let stalled = readable && stream.credit.is_exhausted();
        if stalled && stream.request_credit() {
            self.stats.credit_stalls.count();
        }
        let (urgent, data) = (stream.has_pending(), readable && !stalled);
        if urgent {
            self.table.enqueue(id, Turn::Urgent);
        }
        if data {
            self.table.enqueue(id, Turn::Data);
        }
    }

    /// A port that a connection of the host's must not seem to come from.
    fn is_reserved(config: &Config, host_port: u32) -> bool {
        matches!(host_port, 0 | port::TIME_SYNC | port::RENDEZVOUS | port::ANY)
            || port::is_control(host_port)
            || config.stream_routes.contains(&host_port)
    }

    fn new_proxy(key: Key, kind: SocketKind, origin: Origin, state: State) -> Proxy {
        Proxy {
            key,
            kind,
            origin,
            state,
            peer: None,
            readable: false,
            deadline: None,
        }
    }

    fn set_timeout(&mut self, id: ProxyId, now: Duration, after: Duration) {
        self.table.set_deadline(id, Some(now.saturating_add(after)));
    }
}

impl std::fmt::Debug for Muxer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Muxer")
            .field("proxies", &self.table.len())
            .finish_non_exhaustive()
    }
}
