//! A muxer between a guest and a host that do anything in any order, and what must hold whatever they do. Bytes choose
//! what happens next, so that property tests and fuzzing share it.

use std::collections::BTreeMap;
use std::time::Duration;

use vsock_proto::state::MuxerState;
use vsock_proto::wire::{Header, Op, PacketType, port};
use vsock_proto::{
    Action, Cid, Config, DatagramRead, Errno, Key, Limits, Muxer, ProxyId, Received, StreamRead, Ticket, Transmit,
    TsiFlags,
};

const PROXIES: usize = 12;
const REQUESTS: usize = 16;
const BUFFERED: u64 = 200 << 10;
const ROUTE: u32 = 52;
const STRAYS: usize = 256;

/// What the guest's side of one stream has said and heard.
#[derive(Default)]
struct Conversation {
    /// A REQUEST of the guest's that was not answered.
    asked: bool,
    given_up: bool,
    open: bool,
    /// The device's socket for it is closed: only RST may follow.
    closed: bool,
    sent_to_guest: u64,
    packet_ends: Vec<u64>,
    consumed: u64,
    buf_alloc: u32,
    /// How many bytes the host may hold, by the device's own words.
    window: u64,
}

/// A host socket.
#[derive(Default)]
struct HostEnd {
    key: Option<Key>,
    connecting: bool,
    listening: bool,
    buffered: u64,
    /// It broke, so that what it did not take is nobody's fault.
    broken: bool,
}

pub(crate) struct World<'a> {
    choices: std::slice::Iter<'a, u8>,
    mux: Muxer,
    now: Duration,
    host: BTreeMap<ProxyId, HostEnd>,
    guest: BTreeMap<(u32, u32), Conversation>,
    tickets: Vec<(ProxyId, Ticket)>,
}

/// Runs a world to the end of its choices, then lets everybody finish.
pub(crate) fn run(choices: &[u8]) {
    let mut config = Config::new(Cid::DEFAULT_GUEST);
    config.tsi = TsiFlags { inet: true, unix: true };
    config.stream_routes.insert(ROUTE);
    config
        .publish
        .ports
        .insert(80, "127.0.0.1:8080".parse().expect("an address"));
    config.limits = Limits {
        proxies: PROXIES,
        listeners: 2,
        buffered_bytes: BUFFERED,
        requests: REQUESTS,
        ..Limits::default()
    };
    let mut world = World {
        choices: choices.iter(),
        mux: Muxer::new(config),
        now: Duration::ZERO,
        host: BTreeMap::new(),
        guest: BTreeMap::new(),
        tickets: Vec::new(),
    };
    while world.step() {
        world.check();
        if world.choices.len().is_multiple_of(16) {
            world.snapshot();
        }
    }
    world.finish();
}

impl World<'_> {
    fn choose(&mut self, below: u8) -> u8 {
        self.choices.next().map_or(0, |byte| byte % below)
    }

    fn step(&mut self) -> bool {
        let Some(&what) = self.choices.clone().next() else {
            return false;
        };
        self.choices.next();
        match what % 16 {
            0..=4 => self.guest_stream_packet(),
            5..=7 => self.guest_control(),
            8..=10 => {
                self.transmit();
            }
            11 => self.host_decides(),
            12 => self.host_moves(),
            13 => self.host_client(),
            14 => {
                let ticks = u64::from(self.choose(255));
                self.now += Duration::from_millis(ticks * 100);
                self.mux.handle_timeout(self.now);
            }
            _ => self.guest_datagram(),
        }
        self.actions();
        true
    }

    /// Keys that the guest may speak of: its own few, and those that the device chose.
    fn key(&mut self) -> (u32, u32) {
        let known: Vec<_> = self.guest.keys().copied().collect();
        match self.choose(4) {
            0 => (1 + u32::from(self.choose(3)), port::RENDEZVOUS),
            1 => (1 + u32::from(self.choose(3)), ROUTE),
            _ if known.is_empty() => (1, port::RENDEZVOUS),
            _ => known[usize::from(self.choose(255)) % known.len()],
        }
    }

    fn guest_stream_packet(&mut self) {
        let key = self.key();
        let op = match self.choose(12) {
            8.. => Op::Rw,
            n => Op::from(u16::from(n)),
        };
        let len = match (op, self.choose(4)) {
            (Op::Rw, 0) => 0,
            (Op::Rw, 1) => 65536,
            (Op::Rw, n) => u32::from(n) * 1000,
            _ => 0,
        };
        let buf_alloc = [0, 5000, 262_144, u32::MAX][usize::from(self.choose(4))];
        let honest = self.choose(16) != 0;
        let eats = u64::from(self.choose(4)) * 700;
        let talk = self.guest.entry(key).or_default();
        let eaten = eats.min(talk.sent_to_guest - talk.consumed);
        let consumed = talk.consumed + eaten;
        let fwd_cnt = if honest {
            wrap(consumed)
        } else {
            wrap(talk.sent_to_guest + 1 + eats)
        };
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: key.0,
            dst_port: key.1,
            len,
            kind: PacketType::Stream,
            op,
            flags: u32::from(self.choose(4)),
            buf_alloc,
            fwd_cnt,
        };
        if matches!(op, Op::Request | Op::Rst) {
            self.forget_host_ends(key);
        }
        self.note_guest_packet(key, &header, honest, consumed);
        if let Received::Stream { id, len } = self.mux.receive(self.now, &header, len, &[]) {
            let talk = &self.guest[&key];
            // A guest may send before it has seen our RESPONSE, though without knowing its window.
            assert!(talk.open || talk.asked, "data is passed on of open streams only");
            let window = if talk.asked { u64::MAX } else { talk.window };
            let end = self.host.get_mut(&id).expect("a socket for an open stream");
            end.buffered += u64::from(len);
            assert!(end.buffered <= window, "data beyond the window is not passed on");
            let taken = u64::from(self.choose(3)) * end_half(len);
            self.flush(id, taken);
        }
    }

    /// The guest uses the key for something else; what is still to be passed on for an earlier stream has no say in it.
    fn forget_host_ends(&mut self, (guest_port, host_port): (u32, u32)) {
        let key = Some(Key { guest_port, host_port });
        let mux = &self.mux;
        let open = self
            .host
            .iter_mut()
            .filter(|(id, end)| end.key == key && mux.is_open(**id));
        open.for_each(|(_, end)| end.key = None);
    }

    fn note_guest_packet(&mut self, key: (u32, u32), header: &Header, honest: bool, consumed: u64) {
        let talk = self.guest.entry(key).or_default();
        match header.op {
            Op::Request => {
                *talk = Conversation {
                    asked: true,
                    ..Conversation::default()
                }
            }
            Op::Rst => {
                *talk = Conversation {
                    closed: true,
                    ..Conversation::default()
                }
            }
            _ => {}
        }
        if !honest || matches!(header.op, Op::Other(_)) {
            return;
        }
        talk.buf_alloc = header.buf_alloc;
        if header.op != Op::Request {
            talk.consumed = consumed.min(talk.sent_to_guest);
            let consumed = talk.consumed;
            talk.packet_ends.retain(|&end| end > consumed);
        }
    }

    fn guest_control(&mut self) {
        let svm_port = u32::from(1 + self.choose(3));
        let to = port::CREATE + u32::from(self.choose(8));
        let peer_port = if self.choose(2) == 0 {
            port::RENDEZVOUS
        } else {
            self.key().1
        };
        let name = [2, 0, 0, 80, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let mut body = match to {
            port::CREATE => words(&[svm_port, 2 | u32::from(1 + self.choose(2)) << 16]),
            port::CONNECT | port::SENDTO_ADDR => [words(&[svm_port, 16]), name.to_vec()].concat(),
            port::LISTEN => [words(&[svm_port, svm_port, 3, 16]), name.to_vec()].concat(),
            port::ACCEPT => words(&[svm_port, 0x800 * u32::from(self.choose(2))]),
            port::GETNAME => words(&[svm_port, peer_port, 1]),
            _ => words(&[svm_port, peer_port]),
        };
        if self.choose(20) == 0 {
            body.truncate(usize::from(self.choose(20)));
        }
        if matches!(to, port::CREATE | port::RELEASE)
            && let Some(talk) = self.guest.get_mut(&(svm_port, port::RENDEZVOUS))
        {
            // The guest gave the socket up; nobody there waits for an answer.
            talk.given_up = true;
        }
        if to == port::CREATE {
            self.forget_host_ends((svm_port, port::RENDEZVOUS));
        }
        let reply_port = 9000 + u32::from(self.choose(200));
        self.datagram(reply_port, to, &body);
    }

    fn guest_datagram(&mut self) {
        let from = u32::from(1 + self.choose(3));
        let to = if self.choose(2) == 0 { port::SENDTO_DATA } else { from };
        self.datagram(from, to, b"datagram");
    }

    fn datagram(&mut self, from: u32, to: u32, body: &[u8]) {
        let header = datagram_header(from, to, body);
        self.mux.receive(self.now, &header, header.len, body);
    }

    /// One packet for the guest. False if there is none.
    fn transmit(&mut self) -> bool {
        match self.mux.poll_transmit() {
            None => return false,
            Some(Transmit::Packet { header, .. }) if header.kind == PacketType::Datagram => {}
            Some(Transmit::Packet { header, .. }) => self.note_device_packet(&header),
            Some(Transmit::Stream {
                id,
                max_bytes,
                max_packets,
            }) => self.read_stream(id, max_bytes, max_packets),
            Some(Transmit::Datagram { id }) => {
                let read = match self.choose(4) {
                    0 => DatagramRead::Empty,
                    1 => DatagramRead::TooLong,
                    more => DatagramRead::Got {
                        len: 5,
                        from: None,
                        more: more == 2,
                    },
                };
                self.mux.datagram_read(id, read);
            }
            Some(Transmit::Time { .. }) => {}
        }
        self.actions();
        true
    }

    fn note_device_packet(&mut self, header: &Header) {
        let talk = self.guest.entry((header.dst_port, header.src_port)).or_default();
        match header.op {
            Op::Rst => {
                *talk = Conversation {
                    closed: true,
                    ..Conversation::default()
                };
                return;
            }
            Op::Response => {
                assert!(talk.asked, "RESPONSE without REQUEST");
                *talk = Conversation {
                    open: true,
                    buf_alloc: talk.buf_alloc,
                    ..Conversation::default()
                };
            }
            Op::Request => {
                *talk = Conversation {
                    open: true,
                    ..Conversation::default()
                }
            }
            op => assert!(talk.open && !talk.closed, "{op:?} on a stream that is not open"),
        }
        talk.window = u64::from(header.buf_alloc);
    }

    fn read_stream(&mut self, id: ProxyId, max_bytes: u32, max_packets: u32) {
        assert!(max_bytes > 0 && max_packets > 0);
        let key = self.mux.key(id).expect("a live stream");
        let end = match self.choose(8) {
            0 => StreamRead::Eof,
            1 => StreamRead::Failed,
            2 | 3 => StreamRead::Empty,
            _ => StreamRead::More,
        };
        let bytes = [1, 100, 3732, max_bytes][usize::from(self.choose(4))].min(max_bytes);
        let mut left = if end == StreamRead::Failed { 0 } else { bytes };
        for _ in 0..max_packets {
            let len = left.min(3732);
            if len == 0 {
                break;
            }
            left -= len;
            let header = self.mux.stream_header(id, len).expect("a live stream");
            self.note_device_packet(&header);
            let talk = self.guest.get_mut(&(key.guest_port, key.host_port)).expect("noted");
            talk.sent_to_guest += u64::from(len);
            talk.packet_ends.push(talk.sent_to_guest);
            let in_flight = talk.sent_to_guest - talk.consumed;
            assert!(in_flight <= u64::from(talk.buf_alloc), "beyond the guest's window");
            assert!(in_flight <= 1 << 20, "beyond what is ever in flight");
            let held = talk.packet_ends.len();
            assert!(
                held <= (talk.buf_alloc as usize / 576).max(1),
                "more packets than Linux takes"
            );
        }
        if end == StreamRead::Failed {
            self.host.get_mut(&id).expect("there").broken = true;
        }
        self.mux.stream_read(id, end);
    }

    fn host_decides(&mut self) {
        let waiting: Vec<_> = self
            .host
            .iter()
            .filter(|(_, end)| end.connecting)
            .map(|(&id, _)| id)
            .collect();
        if let Some((id, ticket)) = self.tickets.pop() {
            self.mux.named(id, ticket, Err(Errno::ENOTCONN));
        }
        if waiting.is_empty() {
            return;
        }
        let id = waiting[usize::from(self.choose(255)) % waiting.len()];
        let ok = self.choose(3) != 0;
        self.decide(id, ok);
    }

    fn decide(&mut self, id: ProxyId, ok: bool) {
        if ok {
            self.host.get_mut(&id).expect("there").connecting = false;
            self.mux.connected(self.now, id, Ok(()));
        } else {
            self.host.remove(&id);
            self.mux.connected(self.now, id, Err(Errno::ECONNREFUSED));
        }
    }

    fn host_moves(&mut self) {
        let ids: Vec<_> = self.host.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[usize::from(self.choose(255)) % ids.len()];
        match self.choose(8) {
            0 => {
                let end = self.host.get_mut(&id).expect("there");
                (end.buffered, end.broken) = (0, true);
                self.mux.write_failed(id);
            }
            1..=3 => {
                let bytes = u64::from(self.choose(255)) * 500;
                self.flush(id, bytes);
            }
            _ => {
                self.mux.readable(id);
            }
        }
    }

    fn flush(&mut self, id: ProxyId, bytes: u64) {
        let end = self.host.get_mut(&id).expect("there");
        let taken = bytes.min(end.buffered);
        end.buffered -= taken;
        self.mux.flushed(id, u32::try_from(taken).expect("less than a window"));
    }

    fn host_client(&mut self) {
        let listener = self.host.iter().find(|(_, end)| end.listening).map(|(&id, _)| id);
        let accepted = match listener {
            Some(listener) if self.choose(2) == 0 => {
                let may = self.mux.may_accept(listener);
                may.then(|| self.mux.accepted(self.now, listener, None)).flatten()
            }
            _ => {
                let guest_port = u32::from(1 + self.choose(3));
                self.mux.open_to_guest(self.now, guest_port)
            }
        };
        if let Some(id) = accepted {
            let key = self.mux.key(id);
            self.host.insert(
                id,
                HostEnd {
                    key,
                    ..HostEnd::default()
                },
            );
        }
    }

    fn actions(&mut self) {
        while let Some(action) = self.mux.poll_action() {
            match action {
                Action::Connect { id, .. } | Action::ConnectRoute { id, .. } => {
                    let end = HostEnd {
                        key: self.mux.key(id),
                        connecting: true,
                        ..HostEnd::default()
                    };
                    assert!(self.host.insert(id, end).is_none(), "one socket for each proxy");
                }
                Action::Listen { id, at, .. } => {
                    if self.choose(3) == 0 {
                        self.mux.listening(id, Err(Errno::EADDRINUSE));
                    } else {
                        self.host.insert(
                            id,
                            HostEnd {
                                listening: true,
                                ..HostEnd::default()
                            },
                        );
                        self.mux.listening(id, Ok(at));
                    }
                }
                Action::OpenDatagram { id, .. } => {
                    self.host.insert(id, HostEnd::default());
                    self.mux.datagram_opened(id, Ok(()));
                }
                Action::ConnectDatagram { id, to } => {
                    self.host.entry(id).or_default();
                    self.mux.datagram_connected(id, Ok(to));
                }
                Action::QueryName { id, ticket, .. } => self.tickets.push((id, ticket)),
                Action::Close { id, abort } => self.closed(id, abort),
                Action::ShutdownWrite { id } => assert_eq!(self.host[&id].buffered, 0, "all is flushed before"),
                Action::Opened { .. } | Action::ShutdownRead { .. } | Action::ResumeAccept { .. } => {}
            }
        }
    }

    fn closed(&mut self, id: ProxyId, abort: bool) {
        let end = self.host.remove(&id).unwrap_or_default();
        assert!(
            abort || end.broken || end.buffered == 0,
            "{} bytes lost in silence",
            end.buffered
        );
        let key = end.key;
        if let Some(Key { guest_port, host_port }) = key
            && let Some(talk) = self.guest.get_mut(&(guest_port, host_port))
            && !talk.asked
        {
            talk.closed = true;
        }
    }

    fn check(&self) {
        assert!(self.mux.len() <= PROXIES);
        assert!(self.host.len() <= PROXIES, "no socket without a proxy");
        let buffered: u64 = self.host.values().map(|end| end.buffered).sum();
        assert!(buffered <= BUFFERED, "{buffered} bytes buffered");
    }

    /// What is saved now can be restored, saving it again gives the same, and both copies answer alike from there on.
    fn snapshot(&self) {
        let state = self.mux.save();
        let mut copies = [&state, &restored(self.mux.config(), &state).save()].map(|state| {
            let copy = restored(self.mux.config(), state);
            assert_eq!(copy.save(), *state);
            copy
        });
        let [heard, again] = copies.each_mut().map(heard_of);
        assert_eq!(heard, again);
        let replies = heard
            .iter()
            .filter(|heard| matches!(heard, Transmit::Packet { reply: Some(_), .. }));
        assert_eq!(
            replies.count(),
            state.replies.len() + 3,
            "each request is answered once"
        );
    }

    /// Everything that is undecided is decided, everything that can be said is said; then nobody waits for anything.
    fn finish(&mut self) {
        while let Some(id) = self.host.iter().find(|(_, end)| end.connecting).map(|(&id, _)| id) {
            self.decide(id, true);
            self.actions();
        }
        while let Some((id, ticket)) = self.tickets.pop() {
            self.mux.named(id, ticket, Err(Errno::ENOTCONN));
        }
        let mut packets = 0;
        while self.transmit() {
            packets += 1;
            assert!(packets < STRAYS + REQUESTS + PROXIES * 2000, "packets without end");
        }
        assert!(!self.mux.wants_transmit());
        if self.mux.stats().resets_dropped.get() == 0 {
            for (key, talk) in &self.guest {
                assert!(!talk.asked || talk.given_up, "REQUEST of {key:?} was never answered");
            }
        }
        self.mux.reset();
        self.actions();
        assert!(self.host.is_empty() && self.mux.is_empty(), "a reset closes everything");
        assert_eq!(self.mux.next_deadline(), None);
    }
}

/// A muxer with this state, whose host does all that it is asked for.
fn restored(config: &Config, state: &MuxerState) -> Muxer {
    let mut mux = Muxer::new(config.clone());
    mux.restore(state).expect("what was saved can be restored");
    while let Some(action) = mux.poll_action() {
        match action {
            Action::Listen { id, at, .. } => mux.listening(id, Ok(at)),
            Action::OpenDatagram { id, .. } => mux.datagram_opened(id, Ok(())),
            Action::ConnectDatagram { id, to } => mux.datagram_connected(id, Ok(to)),
            action => panic!("{action:?} after a restore"),
        }
    }
    mux
}

/// What the guest hears after it has asked something of three sockets.
fn heard_of(mux: &mut Muxer) -> Vec<Transmit> {
    let mut heard: Vec<_> = std::iter::from_fn(|| mux.poll_transmit()).collect();
    for svm_port in 1..4u32 {
        let body = [svm_port, 0x800].map(u32::to_le_bytes).concat();
        let header = datagram_header(8000 + svm_port, port::ACCEPT, &body);
        mux.receive(Duration::ZERO, &header, header.len, &body);
    }
    heard.extend(std::iter::from_fn(|| mux.poll_transmit()));
    heard
}

fn datagram_header(from: u32, to: u32, body: &[u8]) -> Header {
    Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: from,
        dst_port: to,
        len: u32::try_from(body.len()).expect("short"),
        kind: PacketType::Datagram,
        op: Op::Rw,
        flags: 0,
        buf_alloc: 0,
        fwd_cnt: 0,
    }
}

fn wrap(count: u64) -> u32 {
    u32::try_from(count & 0xffff_ffff).expect("masked")
}

fn end_half(len: u32) -> u64 {
    u64::from(len / 2)
}
