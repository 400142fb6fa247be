//! From the host to the guest.

mod common;

use std::io::{Seek, Write};

use common::{Bench, PORT_OPEN, PORT_READY, message, pipe, pipe_port, rx_of, terminal_port, write_all};
use proptest::prelude::*;
use virtio_console::{Direction, F_SIZE, Size, TerminalSize};

const INPUT_0: u32 = 0;

#[test]
fn input_waits_until_the_guest_has_the_port_open() {
    let (read, write) = pipe();
    let mut bench = Bench::new(vec![pipe_port("in", Some(read), None)]);
    write_all(&write, b"hello");
    bench.offer_room(0, 64);
    bench.tell(0, PORT_READY, 1);
    assert_eq!(bench.received(0), b"");
    assert!(bench.watched.by_token.is_empty());

    bench.tell(0, PORT_OPEN, 1);

    assert_eq!(bench.received(0), b"hello");
}

#[test]
fn input_that_comes_later_wakes_the_port() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("in", Some(read), None)]);
    bench.offer_room(0, 64);
    bench.offer_room(0, 64);
    bench.kick();
    assert_eq!(bench.watched.by_token[&INPUT_0].1, Direction::Readable);

    write_all(&write, b"late");
    let signals = bench.wake(INPUT_0);

    assert!(signals.used_ring);
    assert_eq!(bench.received(0), b"late");
}

#[test]
fn input_without_room_in_the_guest_is_not_waited_for() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("in", Some(read), None)]);
    write_all(&write, b"abcdef");
    bench.kick();
    assert!(bench.watched.by_token.is_empty());

    bench.offer_room(0, 3);
    bench.kick();
    assert_eq!(bench.received(0), b"abc");
    assert!(
        bench.watched.by_token.is_empty(),
        "the next bytes wait in the pipe, not in a loop"
    );

    bench.offer_room(0, 100);
    bench.kick();
    assert_eq!(bench.received(0), b"def");
}

#[test]
fn end_of_input_comes_after_the_last_bytes_and_ends_the_waiting() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("in", Some(read), None)]);
    for _ in 0..4 {
        bench.offer_room(0, 64);
    }
    bench.kick();
    write_all(&write, b"last");
    drop(write);

    bench.wake(INPUT_0);

    assert_eq!(bench.received(0), b"last");
    assert_eq!(bench.hear(), [message(0, PORT_OPEN, 0)]);
    assert!(
        bench.watched.by_token.is_empty(),
        "a pipe that has hung up is ready for ever"
    );
}

#[test]
fn file_is_read_to_its_end() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[9; 10_000]).unwrap();
    file.rewind().unwrap();
    let mut bench = Bench::connected(vec![pipe_port("in", Some(file.into()), None)]);
    for _ in 0..8 {
        bench.offer_room(0, 4096);
    }
    bench.kick();
    assert_eq!(bench.received(0), [9; 10_000]);
    assert_eq!(bench.hear(), [message(0, PORT_OPEN, 0)]);
}

#[test]
fn guest_that_closes_its_pipe_breaks_it_for_the_writer() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("in", Some(read), None)]);
    bench.offer_room(0, 64);
    bench.kick();

    bench.tell(0, PORT_OPEN, 0);

    assert_eq!(rustix::io::write(&write, b"x").unwrap_err(), rustix::io::Errno::PIPE);
    assert!(bench.watched.by_token.is_empty());
}

#[test]
fn terminal_gets_what_is_typed() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![terminal_port(&TerminalSize::default(), Some(read), None)]);
    bench.offer_room(0, 64);
    write_all(&write, b"ls\r");
    bench.kick();
    assert_eq!(bench.received(0), b"ls\r");
}

#[test]
fn console_without_multiport_works_both_ways() {
    let (read, write) = pipe();
    let (output, output_write) = pipe();
    let size = TerminalSize::new(Size { cols: 80, rows: 24 });
    let mut bench = Bench::with_features(vec![terminal_port(&size, Some(read), Some(output_write))], F_SIZE);
    bench.offer_room(0, 64);
    write_all(&write, b"in");
    bench.send(0, b"out");

    bench.kick();

    assert_eq!(bench.received(0), b"in");
    assert_eq!(common::read_now(&output), b"out");
}

#[test]
fn console_without_multiport_tells_a_new_size_by_config_once() {
    let size = TerminalSize::new(Size { cols: 80, rows: 24 });
    let mut bench = Bench::with_features(vec![terminal_port(&size, None, None)], F_SIZE);
    assert!(!bench.kick().config_changed);
    size.set(Size { cols: 100, rows: 30 });
    assert!(bench.kick().config_changed);
    assert!(!bench.kick().config_changed);
}

#[test]
fn console_after_a_reset_goes_on_with_its_streams() {
    let (read, write) = pipe();
    let (output, output_write) = pipe();
    let ports = || vec![pipe_port("both", Some(read), Some(output_write))];
    let mut bench = Bench::connected(ports());
    bench.offer_room(0, 64);
    bench.send(0, b"before");
    bench.kick();

    let mut bench = Bench::with_ports(bench.handler.into_ports(), virtio_console::F_MULTIPORT, bench.guest);
    bench.tell(0, PORT_READY, 1);
    bench.tell(0, PORT_OPEN, 1);
    bench.offer_room(0, 64);
    write_all(&write, b"after");
    bench.send(0, b" and after");
    bench.kick();

    assert_eq!(bench.received(0), b"after");
    assert_eq!(common::read_now(&output), b"before and after");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_into_any_buffers_arrive_in_order(
        writes in proptest::collection::vec(1_usize..3000, 1..20),
        rooms in proptest::collection::vec(proptest::collection::vec(0_usize..2000, 1..4), 1..30),
        event_idx in any::<bool>(),
    ) {
        let features = virtio_console::F_MULTIPORT | if event_idx { 1 << 29 } else { 0 };
        let (read, write) = pipe();
        let mut bench = Bench::with_features(vec![pipe_port("in", Some(read), None)], features);
        bench.tell(0, PORT_OPEN, 1);
        let mut sent = Vec::new();
        let mut got = Vec::new();
        let mut rooms = rooms.into_iter().cycle();
        for len in writes {
            let bytes: Vec<u8> = (0..len).map(|at| (at + sent.len()).to_le_bytes()[0]).collect();
            write_all(&write, &bytes);
            sent.extend(bytes);
            let mut rounds = 0;
            while got.len() < sent.len() {
                rounds += 1;
                prop_assert!(rounds < 10_000, "bytes that have room arrive");
                let lens = rooms.next().unwrap();
                // Some room in every other chain at the least, or nothing would ever arrive.
                let lens: Vec<_> = if rounds % 2 == 0 { vec![64] } else { lens };
                let buffers = bench.guest.writable_pieces(&lens);
                bench.offer(rx_of(0), &buffers);
                let guest = bench.guest.clone();
                let kick = bench.queues[rx_of(0)].wants_kick(guest.mem());
                if bench.watched.by_token.contains_key(&INPUT_0) { bench.wake(INPUT_0); } else if kick { bench.kick(); }
                got.extend(bench.received(0));
            }
        }
        prop_assert_eq!(got, sent);
    }
}
