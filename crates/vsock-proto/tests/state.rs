//! Saved state: what comes back, and what is refused.

use std::time::Duration;

use proptest::collection::vec as list;
use proptest::prelude::*;
use vsock_proto::state::{DatagramState, ListenerState, MuxerState, PeerState, ReplyState, RestoreError, SocketState};
use vsock_proto::wire::{Family, Reply, SocketName, UnixName, port};
use vsock_proto::{Action, Cid, Config, Errno, Limits, Muxer, Transmit, TsiFlags};

fn muxer() -> Muxer {
    let mut config = Config::new(Cid::DEFAULT_GUEST);
    config.tsi.inet = true;
    config.publish.ports.insert(80, "127.0.0.1:8080".parse().unwrap());
    config.limits = Limits {
        proxies: 4,
        listeners: 1,
        requests: 2,
        backlog: 8,
        ..Limits::default()
    };
    Muxer::new(config)
}

fn inet(addr: &str) -> SocketName {
    SocketName::Inet(addr.parse().unwrap())
}

fn listener() -> ListenerState {
    ListenerState {
        port: 5000,
        family: Family::Inet,
        vm_port: 5000,
        name: inet("0.0.0.0:80"),
        backlog: 5,
        unannounced: 0,
        accept_reply_port: Some(9000),
    }
}

fn datagram() -> DatagramState {
    DatagramState {
        port: 6000,
        family: Family::Inet,
        connected: None,
        destination: Some(inet("10.0.0.1:53")),
    }
}

fn reply(control_port: u32, reply: Reply) -> ReplyState {
    ReplyState {
        reply_port: 9001,
        control_port,
        reply,
        accepted_at: None,
    }
}

fn socket(port: u32) -> SocketState {
    let family = Family::Inet;
    SocketState { port, family }
}

fn whole() -> MuxerState {
    MuxerState {
        sockets: vec![socket(5001)],
        listeners: vec![listener()],
        datagrams: vec![datagram()],
        replies: vec![reply(port::CONNECT, Reply::Result(Errno::ECONNABORTED.reply()))],
        peers: vec![PeerState {
            guest_port: 5000,
            host_port: 0x4000_0000,
            name: inet("10.0.0.9:1234"),
        }],
        next_host_port: 0x4000_0001,
    }
}

fn replies(mux: &mut Muxer) -> Vec<(u32, Reply)> {
    let transmits = std::iter::from_fn(|| mux.poll_transmit());
    let replies = transmits.filter_map(|transmit| match transmit {
        Transmit::Packet {
            header,
            reply: Some(reply),
        } => Some((header.dst_port, reply)),
        _ => None,
    });
    replies.collect()
}

#[test]
fn restore_makes_sockets_again_aborts_connects_and_keeps_accepts_waiting() {
    let mut mux = muxer();
    mux.restore(&whole()).unwrap();
    let actions: Vec<Action> = std::iter::from_fn(|| mux.poll_action()).collect();
    let [
        Action::OpenDatagram { id: datagram, .. },
        Action::Listen { id, at, backlog: 5 },
    ] = actions.as_slice()
    else {
        panic!("{actions:?}");
    };
    assert_eq!(*at, inet("127.0.0.1:8080"));
    mux.datagram_opened(*datagram, Ok(()));
    mux.listening(*id, Ok(at.clone()));
    assert_eq!(mux.save(), whole());
    assert_eq!(replies(&mut mux), [(9001, Reply::Result(Errno::ECONNABORTED.reply()))]);

    assert!(mux.may_accept(*id));
    let inbound = mux.accepted(Duration::ZERO, *id, None).unwrap();
    assert_eq!(mux.key(inbound).unwrap().host_port, 0x4000_0001);
    let Some(Transmit::Packet { header: request, .. }) = mux.poll_transmit() else {
        panic!("REQUEST");
    };
    let mut response = request;
    (response.src_cid, response.dst_cid) = (3, 2);
    (response.src_port, response.dst_port) = (request.dst_port, request.src_port);
    response.op = vsock_proto::wire::Op::Response;
    mux.receive(Duration::ZERO, &response, 0, &[]);
    assert_eq!(replies(&mut mux), [(9000, Reply::Result(0))], "the ACCEPT from before");
}

#[test]
fn restored_listener_whose_place_is_taken_wakes_who_waits_at_it() {
    let mut mux = muxer();
    let listeners = vec![listener()];
    mux.restore(&MuxerState {
        listeners,
        ..MuxerState::default()
    })
    .unwrap();
    let Some(Action::Listen { id, .. }) = mux.poll_action() else {
        panic!("it listens again");
    };
    mux.listening(id, Err(Errno::EADDRINUSE));
    assert_eq!(replies(&mut mux), [(9000, Reply::Result(Errno::ECONNABORTED.reply()))]);
}

#[test]
fn states_that_cannot_be_are_refused_by_name_and_leave_nothing() {
    let changed = |change: &dyn Fn(&mut MuxerState)| {
        let mut state = whole();
        change(&mut state);
        state
    };
    let cases: Vec<(MuxerState, RestoreError)> = vec![
        (
            changed(&|s| s.sockets.extend([5002, 5003].map(socket))),
            RestoreError::TooMany {
                what: "sockets",
                count: 5,
                limit: 4,
            },
        ),
        (
            changed(&|s| s.listeners.push(listener())),
            RestoreError::TooMany {
                what: "listeners",
                count: 2,
                limit: 1,
            },
        ),
        (
            changed(&|s| s.replies = vec![s.replies[0].clone(); 3]),
            RestoreError::TooMany {
                what: "requests",
                count: 4,
                limit: 3,
            },
        ),
        (
            changed(&|s| s.peers = vec![s.peers[0].clone(); 265]),
            RestoreError::TooMany {
                what: "names of peers",
                count: 265,
                limit: 264,
            },
        ),
        (
            changed(&|s| s.listeners[0].unannounced = 267),
            RestoreError::TooMany {
                what: "connections of one listener",
                count: 267,
                limit: 266,
            },
        ),
        (
            changed(&|s| s.sockets[0].port = 0),
            RestoreError::Port {
                what: "stream port",
                port: 0,
            },
        ),
        (
            changed(&|s| s.listeners[0].vm_port = u32::MAX),
            RestoreError::Port {
                what: "port of a listener",
                port: u32::MAX,
            },
        ),
        (
            changed(&|s| s.sockets[0].port = 5000),
            RestoreError::Twice {
                what: "stream port",
                port: 5000,
            },
        ),
        (
            changed(&|s| s.replies[0].reply_port = 9000),
            RestoreError::Twice {
                what: "waiting port",
                port: 9000,
            },
        ),
        (
            changed(&|s| s.sockets[0].family = Family::Unix),
            RestoreError::Family { port: 5001 },
        ),
        (
            changed(&|s| s.datagrams[0].family = Family::Inet6),
            RestoreError::Name { port: 6000 },
        ),
        (
            changed(&|s| s.peers[0].name = long_name()),
            RestoreError::Name { port: 5000 },
        ),
        (
            changed(&|s| s.listeners[0].name = inet("0.0.0.0:81")),
            RestoreError::NotPublished { port: 5000 },
        ),
        (
            changed(&|s| s.datagrams[0].destination = Some(inet("127.0.0.1:53"))),
            RestoreError::Denied { port: 6000 },
        ),
        (
            changed(&|s| s.datagrams[0].connected = Some(inet("169.254.169.254:80"))),
            RestoreError::Denied { port: 6000 },
        ),
        (
            changed(&|s| s.replies[0].reply = Reply::Result(1)),
            bad_reply(port::CONNECT),
        ),
        (
            changed(&|s| s.replies[0].reply = Reply::Result(-4096)),
            bad_reply(port::CONNECT),
        ),
        (
            changed(&|s| s.replies[0] = reply(port::GETNAME, Reply::Result(0))),
            bad_reply(port::GETNAME),
        ),
        (
            changed(&|s| s.replies[0] = reply(port::GETNAME, Reply::Name(Ok(long_name())))),
            bad_reply(port::GETNAME),
        ),
        (
            changed(&|s| s.replies[0].control_port = port::RELEASE),
            bad_reply(port::RELEASE),
        ),
    ];
    for (state, error) in cases {
        let mut mux = muxer();
        assert_eq!(mux.restore(&state), Err(error));
        assert!(mux.is_empty() && mux.poll_action().is_none() && !mux.wants_transmit());
    }
}

/// A guest's kernel panics at a name that is longer than its structure.
fn long_name() -> SocketName {
    SocketName::Unix(UnixName::Path(vec![b'/'; 108].into()))
}

fn bad_reply(control_port: u32) -> RestoreError {
    RestoreError::Reply {
        reply_port: 9001,
        control_port,
    }
}

/// It panicked, or refused each state that has an answer in it.
#[test]
fn state_is_taken_where_there_are_no_limits() {
    let mut config = Config::new(Cid::DEFAULT_GUEST);
    config.tsi.inet = true;
    (config.limits.requests, config.limits.backlog) = (usize::MAX, usize::MAX);
    let state = MuxerState {
        replies: vec![reply(port::CONNECT, Reply::Result(0))],
        ..MuxerState::default()
    };
    assert_eq!(Muxer::new(config).restore(&state), Ok(()));
}

#[test]
fn muxer_in_use_takes_no_state() {
    let mut mux = muxer();
    mux.restore(&whole()).unwrap();
    assert_eq!(mux.restore(&whole()), Err(RestoreError::InUse(3)));
}

fn any_port() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..8, 5000u32..5004, Just(port::ANY), any::<u32>()]
}

fn any_name() -> impl Strategy<Value = SocketName> {
    let addresses = ["0.0.0.0:80", "10.0.0.1:53", "127.0.0.1:1", "[::1]:80", "[fe80::1%7]:80"];
    let inets = proptest::sample::select(addresses.to_vec()).prop_map(inet);
    let paths = list(any::<u8>(), 0..200);
    let path = paths
        .clone()
        .prop_map(|path| SocketName::Unix(UnixName::Path(path.into())));
    let other = paths.prop_map(|name| SocketName::Unix(UnixName::Abstract(name.into())));
    prop_oneof![4 => inets, 1 => path, 1 => other, 1 => Just(SocketName::Unix(UnixName::Unnamed))]
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (-5000i32..10).prop_map(Reply::Result),
        any_name().prop_map(|name| Reply::Name(Ok(name))),
        (-5000i32..10).prop_map(|result| Reply::Name(Err(result))),
    ]
}

fn any_state() -> impl Strategy<Value = MuxerState> {
    let family = || proptest::sample::select(vec![Family::Inet, Family::Inet6, Family::Unix]);
    let sockets = (any_port(), family()).prop_map(|(port, family)| SocketState { port, family });
    let accept = || proptest::option::of(any_port());
    let listeners = (
        any_port(),
        family(),
        any_port(),
        any_name(),
        any::<u16>(),
        0u16..20,
        accept(),
    )
        .prop_map(
            |(port, family, vm_port, name, backlog, unannounced, accept_reply_port)| ListenerState {
                port,
                family,
                vm_port,
                name,
                backlog,
                unannounced,
                accept_reply_port,
            },
        );
    let names = || proptest::option::of(any_name());
    let datagrams =
        (any_port(), family(), names(), names()).prop_map(|(port, family, connected, destination)| DatagramState {
            port,
            family,
            connected,
            destination,
        });
    let replies = (any_port(), 1020u32..1035, any_reply()).prop_map(|(reply_port, control_port, reply)| ReplyState {
        reply_port,
        control_port,
        reply,
        accepted_at: None,
    });
    (
        list(sockets, 0..3),
        list(listeners, 0..2),
        list(datagrams, 0..3),
        list(replies, 0..3),
        any::<u32>(),
    )
        .prop_map(|(sockets, listeners, datagrams, replies, next_host_port)| MuxerState {
            sockets,
            listeners,
            datagrams,
            replies,
            peers: Vec::new(),
            next_host_port,
        })
}

proptest! {
    #[test]
    fn any_state_is_refused_or_stays_within_the_limits(state in any_state()) {
        let mut mux = muxer();
        if mux.restore(&state).is_ok() {
            prop_assert!(mux.len() <= 4);
            while let Some(action) = mux.poll_action() {
                if let Action::Listen { id, at, .. } = action {
                    mux.listening(id, Ok(at));
                }
            }
            prop_assert!(mux.save().listeners.len() <= 1);
            prop_assert!(replies(&mut mux).len() <= 2);
            mux.reset();
        }
        prop_assert!(mux.is_empty());
    }
}

#[test]
fn device_without_tsi_takes_an_empty_state_only() {
    let mut mux = Muxer::new(Config::new(Cid::DEFAULT_GUEST));
    assert!(mux.config().tsi == TsiFlags::default());
    assert_eq!(mux.restore(&whole()), Err(RestoreError::Family { port: 5001 }));
    assert_eq!(mux.restore(&MuxerState::default()), Ok(()));
}
