//! From the guest to the host.

mod common;

use std::io::{self, Read, Seek, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bench, PORT_OPEN, is_at_end, pipe, pipe_port, read_now, small_pipe, terminal_port, tx_of};
use proptest::prelude::*;
use virtio_console::{Direction, Output, Port, PortKind, TerminalSize};

const OUTPUT_0: u32 = 1;

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<u8>>>);

impl Write for Recorder {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Refusing(io::ErrorKind);

impl Write for Refusing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sink_port(sink: impl Write + Send + 'static) -> Port {
    Port {
        name: "out".into(),
        kind: PortKind::Pipe,
        input: None,
        output: Some(Output::Sink(Box::new(sink))),
    }
}

#[test]
fn output_cut_at_every_byte_arrives_whole() {
    let text = b"hello, host";
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let (read, write) = pipe();
            let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
            let pieces = bench.guest.readable_pieces(text, &[first, second]);
            bench.offer(tx_of(0), &pieces).unwrap();

            let signals = bench.kick();

            assert_eq!(read_now(&read), text, "cut at {first} and {second}");
            assert!(signals.used_ring);
            assert_eq!(bench.used(tx_of(0))[0].0.len, 0);
        }
    }
}

#[test]
fn output_to_file_is_appended_where_the_file_is() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before ").unwrap();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(file.try_clone().unwrap().into()))]);

    bench.send(0, b"after");
    bench.kick();

    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
}

#[test]
fn output_to_sink_is_what_the_guest_wrote() {
    let recorder = Recorder::default();
    let mut bench = Bench::connected(vec![sink_port(recorder.clone())]);
    bench.send(0, b"one ");
    bench.send(0, b"two");
    bench.kick();
    assert_eq!(*recorder.0.lock().unwrap(), b"one two");
    assert_eq!(bench.handler.stats().output_bytes, 7);
}

#[test]
fn output_of_a_port_without_target_is_thrown_away_and_counted() {
    let mut bench = Bench::connected(vec![pipe_port("out", None, None)]);
    bench.send(0, b"lost");
    bench.kick();
    assert_eq!(bench.sent_back(0), 1);
    assert_eq!(bench.handler.stats().discarded_bytes, 4);
}

#[test]
fn blocked_output_leaves_chains_in_the_ring_until_the_host_reads() {
    let (read, write) = small_pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    let sent: Vec<Vec<u8>> = (0..8).map(|byte| vec![byte; 3000]).collect();
    for bytes in &sent {
        bench.send(0, bytes).unwrap();
    }

    bench.kick();
    assert_eq!(bench.sent_back(0), 1, "one fits into the pipe, the second in part");
    assert_eq!(bench.watched.by_token[&OUTPUT_0].1, Direction::Writable);

    let mut got = Vec::new();
    while bench.watched.by_token.contains_key(&OUTPUT_0) {
        let now = read_now(&read);
        assert!(!now.is_empty(), "what has room is written");
        got.extend(now);
        bench.wake(OUTPUT_0);
    }
    got.extend(read_now(&read));

    assert_eq!(got, sent.concat());
    assert_eq!(bench.sent_back(0), sent.len() - 1);
}

#[test]
fn blocked_output_is_not_kicked_into_spinning() {
    let (_read, write) = small_pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, &[0; 5000]);
    bench.kick();
    let calls = bench.watched.calls;
    for _ in 0..10 {
        bench.kick();
    }
    assert!(!bench.handler.wants_again());
    assert_eq!(bench.watched.calls, calls);
}

#[test]
fn blocked_port_does_not_hold_up_another() {
    let (_full, write) = small_pipe();
    let (read, other) = pipe();
    let mut bench = Bench::connected(vec![
        pipe_port("one", None, Some(write)),
        pipe_port("two", None, Some(other)),
    ]);
    bench.send(0, &[0; 5000]);
    bench.send(1, b"through");
    bench.kick();
    assert_eq!(read_now(&read), b"through");
}

#[test]
fn output_whose_reader_is_gone_completes_and_is_thrown_away() {
    let (read, write) = pipe();
    drop(read);
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, b"first");
    bench.send(0, b"second");

    bench.kick();

    assert_eq!(bench.sent_back(0), 2);
    assert_eq!(bench.handler.stats().host_errors, 1);
    assert_eq!(bench.handler.stats().discarded_bytes, 11);
    assert!(bench.watched.by_token.is_empty());
}

#[test]
fn reader_that_leaves_a_blocked_output_frees_the_guest() {
    let (read, write) = small_pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, &[0; 5000]);
    bench.kick();
    assert_eq!(bench.sent_back(0), 0);

    drop(read);
    bench.wake(OUTPUT_0);

    assert_eq!(bench.sent_back(0), 1);
    assert!(bench.watched.by_token.is_empty());
}

#[test]
fn sink_that_refuses_or_would_block_is_closed() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::WouldBlock] {
        let mut bench = Bench::connected(vec![sink_port(Refusing(kind))]);
        bench.send(0, b"lost");
        bench.kick();
        assert_eq!(bench.sent_back(0), 1);
        assert_eq!(bench.handler.stats().discarded_bytes, 4);
    }
}

#[test]
fn pipe_closed_by_the_guest_ends_for_the_reader_after_its_last_bytes() {
    let (read, write) = small_pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, &[7; 9000]);
    bench.tell(0, PORT_OPEN, 0);

    let mut got = read_now(&read);
    assert!(!is_at_end(&read));
    while bench.watched.by_token.contains_key(&OUTPUT_0) {
        bench.wake(OUTPUT_0);
        got.extend(read_now(&read));
    }

    assert_eq!(got, [7; 9000]);
    assert!(is_at_end(&read));
}

#[test]
fn pipe_opened_again_before_its_last_bytes_are_out_stays_open() {
    let (read, write) = small_pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, &[7; 5000]);
    bench.tell(0, PORT_OPEN, 0);
    bench.tell(0, PORT_OPEN, 1);
    let mut got = read_now(&read);
    bench.wake(OUTPUT_0);
    bench.send(0, b"more");
    bench.kick();
    got.extend(read_now(&read));
    assert!(got.ends_with(b"more"));
    assert!(!is_at_end(&read));
}

#[test]
fn terminal_closed_by_the_guest_stays_open() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![terminal_port(&TerminalSize::default(), None, Some(write))]);
    bench.tell(0, PORT_OPEN, 0);
    bench.send(0, b"still here");
    bench.kick();
    assert_eq!(read_now(&read), b"still here");
    assert!(!is_at_end(&read));
}

#[test]
fn drain_waits_for_a_slow_reader() {
    let (read, write) = small_pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    for byte in 0..16 {
        bench.send(0, &[byte; 10_000]).unwrap();
    }
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        std::fs::File::from(read).read_to_end(&mut got).unwrap();
        got
    });

    let guest = bench.guest.clone();
    assert!(bench.handler.drain(guest.mem(), Duration::from_secs(60)));
    drop(bench);

    assert_eq!(
        reader.join().unwrap(),
        (0..16).flat_map(|byte| [byte; 10_000]).collect::<Vec<u8>>()
    );
}

#[test]
fn drain_without_patience_leaves_what_the_host_does_not_take() {
    let (read, write) = small_pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, &[0; 5000]);
    let guest = bench.guest.clone();
    assert!(!bench.handler.drain(guest.mem(), Duration::ZERO));
    assert_eq!(read_now(&read).len(), 4096);
    assert!(bench.handler.drain(guest.mem(), Duration::ZERO));
}

#[test]
fn drain_of_a_closed_pipe_ends_it_for_the_reader() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, b"last words");
    let close = bench.guest.readable(&common::message(0, PORT_OPEN, 0));
    bench.offer(common::FROM_DRIVER, &[close]).unwrap();

    let guest = bench.guest.clone();
    assert!(bench.handler.drain(guest.mem(), Duration::ZERO));

    assert_eq!(read_now(&read), b"last words");
    assert!(is_at_end(&read));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chains_at_any_pace_arrive_in_order(
        chains in proptest::collection::vec(proptest::collection::vec(0_usize..5000, 1..4), 1..60),
        reads in proptest::collection::vec(any::<bool>(), 1..8),
        event_idx in any::<bool>(),
    ) {
        let features = virtio_console::F_MULTIPORT | if event_idx { 1 << 29 } else { 0 };
        let (read, write) = small_pipe();
        let mut bench = Bench::with_features(vec![pipe_port("out", None, Some(write))], features);
        let mut sent = Vec::new();
        let mut got = Vec::new();
        for (turn, lens) in chains.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..lens.iter().sum()).map(|at: usize| (at + sent.len()).to_le_bytes()[0]).collect();
            let mut cuts: Vec<usize> = lens.iter().scan(0, |end, len| { *end += len; Some(*end) }).collect();
            cuts.pop();
            let pieces = bench.guest.readable_pieces(&bytes, &cuts);
            sent.extend(bytes);
            let mut rounds = 0;
            while bench.offer(tx_of(0), &pieces).is_none() {
                rounds += 1;
                prop_assert!(rounds < 1000, "the device gives chains back");
                got.extend(read_now(&read));
                if bench.watched.by_token.contains_key(&OUTPUT_0) { bench.wake(OUTPUT_0) } else { bench.kick() };
                bench.sent_back(0);
            }
            let guest = bench.guest.clone();
            if bench.queues[tx_of(0)].wants_kick(guest.mem()) {
                bench.kick();
            }
            if reads[turn % reads.len()] {
                got.extend(read_now(&read));
            }
        }
        let mut rounds = 0;
        while got.len() < sent.len() {
            rounds += 1;
            prop_assert!(rounds < 1000, "the device goes on by itself when its output has room");
            got.extend(read_now(&read));
            if bench.watched.by_token.contains_key(&OUTPUT_0) {
                bench.wake(OUTPUT_0);
            }
        }
        prop_assert_eq!(got, sent);
    }
}
