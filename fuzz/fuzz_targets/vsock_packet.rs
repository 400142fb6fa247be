//! Any bytes as a packet header: read as view and as value, written again, and given to a muxer as a packet of the
//! guest's with whatever follows as its payload.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vsock_proto::wire::{HEADER_LEN, Header, HeaderView};
use vsock_proto::{Cid, Config, Muxer, TsiFlags};

fuzz_target!(|input: &[u8]| {
    let Ok(view) = HeaderView::new(input) else {
        assert!(input.len() < HEADER_LEN);
        return;
    };
    let (bytes, payload) = input.split_first_chunk::<HEADER_LEN>().expect("as long as a view");
    let header = Header::parse(bytes);
    assert_eq!(view.to_header(), header);
    assert_eq!(header.emit(), *bytes);

    let mut config = Config::new(Cid::DEFAULT_GUEST);
    config.tsi = TsiFlags { inet: true, unix: true };
    config.stream_routes.insert(52);
    let mut mux = Muxer::new(config);
    let available = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let body = if mux.wants_body(&header) { payload } else { &[] };
    mux.receive(Duration::ZERO, &header, available, body);
    while mux.poll_action().is_some() {}
    while mux.poll_transmit().is_some() {}
});
