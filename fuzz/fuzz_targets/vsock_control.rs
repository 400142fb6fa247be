//! Any bytes as a control message. Byte 0 chooses the port (1024 to 1031); the rest is the message.
//!
//! Each is parsed alone, and then sent to a muxer that has a stream, a datagram socket and a listener: it must answer
//! exactly the four kinds of request that are to be answered, once, and at the right length.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vsock_proto::wire::{Header, Op, PacketType, Request, SocketName, port};
use vsock_proto::{Action, Cid, Config, Errno, Muxer, Transmit, TsiFlags};

const REPLY_PORT: u32 = 9000;

fuzz_target!(|input: &[u8]| {
    let Some((&which, body)) = input.split_first() else {
        return;
    };
    let to = port::CREATE + u32::from(which % 8);
    check_names(Request::parse(to, body));
    let mut mux = muxer();
    send(&mut mux, to, body);
    let mut answers = 0;
    while let Some(transmit) = mux.poll_transmit() {
        let Transmit::Packet { header, reply } = transmit else {
            panic!("nothing else can be there: {transmit:?}");
        };
        assert_eq!(
            (header.src_port, header.dst_port, header.kind),
            (to, REPLY_PORT, PacketType::Datagram)
        );
        let expected = if to == port::GETNAME { 136 } else { 4 };
        assert_eq!(
            (header.len, reply.map(|reply| reply.wire_len())),
            (expected, Some(expected as usize))
        );
        answers += 1;
    }
    let answered = matches!(to, port::CONNECT | port::GETNAME | port::LISTEN | port::ACCEPT);
    // An ACCEPT on the listener waits for a connection.
    let waits = to == port::ACCEPT && answers == 0;
    assert!(answers == usize::from(answered) || waits, "{answers} answers at {to}");
});

fn check_names(request: Result<Request, impl Sized>) {
    let name = match request {
        Ok(Request::Connect { to, .. } | Request::SendtoAddr { to, .. }) => to,
        Ok(Request::Listen { at, .. }) => at,
        _ => return,
    };
    if let Ok(name) = name {
        let mut bytes = [0; 128];
        let len = name.emit(&mut bytes);
        assert!((2..=110).contains(&len));
        assert_eq!(SocketName::parse(len, &bytes), Ok(name));
    }
}

fn muxer() -> Muxer {
    let mut config = Config::new(Cid::DEFAULT_GUEST);
    config.tsi = TsiFlags { inet: true, unix: true };
    config
        .publish
        .ports
        .insert(80, "127.0.0.1:8080".parse().expect("an address"));
    config.publish.unix.push(b"/run".to_vec());
    let mut mux = Muxer::new(config);
    for (svm_port, family, kind) in [(1, 2, 1), (2, 2, 2), (3, 2, 1), (4, 1, 1), (5, 10, 1)] {
        let create = [[svm_port, 0, 0, 0], [family, 0, kind, 0]].concat();
        send(&mut mux, port::CREATE, &create);
    }
    let listen = [3, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 80, 0, 0, 0, 0];
    let mut listen = listen.to_vec();
    listen.resize(144, 0);
    send(&mut mux, port::LISTEN, &listen);
    while mux.poll_transmit().is_some() {}
    mux
}

fn send(mux: &mut Muxer, to: u32, body: &[u8]) {
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: REPLY_PORT,
        dst_port: to,
        len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        kind: PacketType::Datagram,
        op: Op::Rw,
        flags: 0,
        buf_alloc: 0,
        fwd_cnt: 0,
    };
    let now = Duration::ZERO;
    mux.receive(now, &header, header.len, body);
    while let Some(action) = mux.poll_action() {
        match action {
            Action::Connect { id, .. } => mux.connected(now, id, Err(Errno::ECONNREFUSED)),
            Action::ConnectDatagram { id, to } => mux.datagram_connected(id, Ok(to)),
            Action::Listen { id, at, .. } => mux.listening(id, Ok(at)),
            Action::OpenDatagram { id, .. } => mux.datagram_opened(id, Ok(())),
            Action::QueryName { id, ticket, .. } => mux.named(id, ticket, Err(Errno::ENOTCONN)),
            _ => {}
        }
    }
}
