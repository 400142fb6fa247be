//! Defects that consoles and other devices really had, and the like: hostile drivers.

mod common;

use common::{
    Bench, DEVICE_READY, FROM_DRIVER, PORT_OPEN, PORT_READY, TO_DRIVER, message, pipe, pipe_port, read_now, rx_of,
    terminal_port, tx_of, write_all,
};
use test_guest::{Buffer, Descriptor, EagerDriver, descriptor_flags, log_lines};
use virtio_console::{ConfigError, F_MULTIPORT, Port, Ports, TerminalSize};

fn three_ports() -> Vec<Port> {
    vec![
        terminal_port(&TerminalSize::default(), None, None),
        pipe_port("in", None, None),
        pipe_port("out", None, None),
    ]
}

/// boot.md (i.2): an implementation indexed its ports with the number in the message.
#[test]
fn port_numbers_out_of_range_in_every_event_are_counted_only() {
    let mut bench = Bench::new(three_ports());
    let mut sent = 0;
    for port in (3..=0xffff)
        .step_by(97)
        .chain([0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX])
    {
        for event in [PORT_READY, PORT_OPEN] {
            for value in [0, 1, 0xffff] {
                bench.tell(port, event, value);
                sent += 1;
            }
        }
    }
    assert_eq!(bench.handler.stats().bad_control, sent);
    assert_eq!(bench.hear(), Vec::<Vec<u8>>::new());
}

#[test]
fn events_that_no_driver_sends_are_counted_only() {
    let mut bench = Bench::new(three_ports());
    for event in [1, 2, 4, 5, 7, 8, 0xff, 0xffff] {
        bench.tell(0, event, 1);
    }
    assert_eq!(bench.handler.stats().bad_control, 8);
    assert_eq!(bench.hear(), Vec::<Vec<u8>>::new());
}

#[test]
fn control_messages_of_every_length_come_back() {
    let mut bench = Bench::new(three_ports());
    for len in 0..=64 {
        let mut bytes = message(0, DEVICE_READY, 1);
        bytes.resize(len, 0xee);
        bench.tell_bytes(&bytes);
        let expected = if len < 8 { 0 } else { 3 };
        assert_eq!(bench.hear().len(), expected, "length {len}");
    }
    assert_eq!(bench.handler.stats().bad_control, 8);
}

#[test]
fn control_message_cut_at_every_byte_is_understood() {
    for cut in 0..=8 {
        let mut bench = Bench::new(three_ports());
        let pieces = bench.guest.readable_pieces(&message(0, DEVICE_READY, 1), &[cut]);
        bench.offer(FROM_DRIVER, &pieces).unwrap();
        assert_eq!(bench.hear().len(), 3, "cut at {cut}");
    }
}

/// boot.md (i.2): the pending control messages were a list without limit.
#[test]
fn flood_of_control_messages_without_room_for_answers_is_answered_once() {
    let mut bench = Bench::new(three_ports());
    for _ in 0..10_000 {
        let start = bench.guest.clone();
        bench.tell(0, DEVICE_READY, 1);
        bench.tell(1, PORT_READY, 1);
        // The guest's memory is not freed: take it back.
        bench.guest = start;
    }
    let mut heard = Vec::new();
    loop {
        let now = bench.hear();
        if now.is_empty() {
            break;
        }
        heard.extend(now);
    }
    assert_eq!(heard.len(), 5, "three ports added, one opened and named");
}

#[test]
fn message_too_long_for_a_control_buffer_waits_for_a_longer_one() {
    let mut bench = Bench::new(vec![pipe_port("a-long-name", None, None)]);
    bench.tell(0, PORT_READY, 1);
    let short = bench.guest.writable(8);
    for _ in 0..3 {
        bench.offer(TO_DRIVER, &[short]).unwrap();
    }
    bench.kick();
    let used: Vec<_> = bench.used(TO_DRIVER).into_iter().map(|(used, _)| used.len).collect();
    assert_eq!(used, [8, 0, 0], "the opening fits, the name does not");
    assert_eq!(bench.handler.stats().short_control_buffers, 2);

    assert_eq!(bench.hear(), [[&message(0, 7, 1)[..], b"a-long-name"].concat()]);
}

#[test]
fn control_buffers_without_room_at_all_come_back_empty() {
    let mut bench = Bench::new(three_ports());
    bench.tell(0, DEVICE_READY, 1);
    let readable = bench.guest.readable(&[0; 64]);
    bench.offer(TO_DRIVER, &[readable]).unwrap();
    bench.kick();
    assert_eq!(bench.used(TO_DRIVER)[0].0.len, 0);
    assert_eq!(bench.hear().len(), 3);
}

/// hostile-inputs 4: avail.idx jumps (vm-virtio PR 196, Firecracker issue 3149, cloud-hypervisor PR 7605).
#[test]
fn index_jump_on_any_queue_asks_for_a_reset_and_does_not_spin() {
    for queue in 0..8 {
        let (_read, write) = pipe();
        let (input, input_write) = pipe();
        write_all(&input_write, b"x");
        let mut bench = Bench::new(vec![
            terminal_port(&TerminalSize::default(), Some(input.try_clone().unwrap()), Some(write)),
            pipe_port("in", Some(input.try_clone().unwrap()), None),
            pipe_port("out", Some(input), None),
        ]);
        for port in 0..3 {
            bench.tell(port, PORT_READY, 1);
            bench.tell(port, PORT_OPEN, 1);
        }
        let idx = bench.queues[queue]
            .avail_idx()
            .wrapping_add(bench.queues[queue].size() + 1);
        bench.queues[queue].set_avail_idx(bench.guest.mem(), idx);

        assert!(bench.kick().needs_reset, "queue {queue}");
        assert!(!bench.handler.wants_again(), "queue {queue}");
        assert!(bench.watched.by_token.is_empty(), "queue {queue}");
    }
}

/// hostile-inputs 6 and 11: chains that loop or leave memory come back, and what follows them works.
#[test]
fn malformed_chains_come_back_and_the_next_one_is_delivered() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(write))]);
    let bad = [
        Descriptor {
            addr: 0x2000,
            len: 4,
            flags: descriptor_flags::NEXT,
            next: 0,
        },
        Descriptor {
            addr: 0x2000,
            len: 4,
            flags: descriptor_flags::NEXT,
            next: 9999,
        },
        Descriptor {
            addr: u64::MAX - 1,
            len: 4,
            flags: 0,
            next: 0,
        },
        Descriptor {
            addr: 0x2000,
            len: u32::MAX,
            flags: 0,
            next: 0,
        },
    ];
    for (round, descriptor) in bad.into_iter().enumerate() {
        let one = bench.guest.readable(b"-");
        let head = bench.offer(tx_of(0), &[one]).unwrap();
        let itself = Descriptor {
            next: if round == 0 { head } else { descriptor.next },
            ..descriptor
        };
        bench.queues[tx_of(0)].set_descriptor(bench.guest.mem(), head, itself);
        bench.send(0, b"good ").unwrap();
        bench.kick();
        assert_eq!(bench.sent_back(0), 2);
    }
    assert_eq!(read_now(&read), b"good good good good ");
}

#[test]
fn chains_of_the_wrong_direction_come_back_empty() {
    let (read, write) = pipe();
    write_all(&write, b"kept");
    let (output, output_write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("both", Some(read), Some(output_write))]);
    let readable = bench.guest.readable(b"not for the device to write");
    let writable = bench.guest.writable(16);
    bench.offer(rx_of(0), &[readable]).unwrap();
    bench.offer(tx_of(0), &[writable]).unwrap();

    bench.kick();

    assert_eq!(bench.used(rx_of(0))[0].0.len, 0);
    assert_eq!(bench.used(tx_of(0))[0].0.len, 0);
    assert_eq!(read_now(&output), b"");
    bench.offer_room(0, 16);
    bench.kick();
    assert_eq!(bench.received(0), b"kept");
}

/// hostile-inputs 12: a chain as long as the guest likes is not copied whole.
#[test]
fn chain_of_gigabytes_is_taken_in_shares() {
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let mut bench = Bench::connected(vec![pipe_port("out", None, Some(null.into()))]);
    let at = bench.guest.alloc(32 << 20, 4096);
    let chain = vec![Buffer::readable(at, 32 << 20); 31];
    bench.offer(tx_of(0), &chain).unwrap();

    bench.kick();

    assert!(bench.handler.wants_again());
    let moved = bench.handler.stats().output_bytes;
    assert!((1..=2 << 20).contains(&moved), "{moved} bytes in one call");
    assert_eq!(bench.sent_back(0), 0);
}

/// hostile-inputs 20: waiting for a source that is ready while the guest has no buffers.
#[test]
fn input_ready_without_buffers_does_not_spin() {
    let (read, write) = pipe();
    let mut bench = Bench::connected(vec![pipe_port("in", Some(read), None)]);
    bench.offer_room(0, 4);
    bench.kick();
    write_all(&write, b"more than fits");
    bench.wake(0);
    assert!(bench.watched.by_token.is_empty());
    assert!(!bench.handler.wants_again());
}

/// Level-triggered pollers deliver what was on its way when a descriptor was given up.
#[test]
fn late_and_unknown_tokens_are_harmless() {
    let mut bench = Bench::connected(three_ports());
    for token in (0..200).chain([u32::MAX - 1, u32::MAX]) {
        let signals = bench.wake(token);
        assert!(!signals.needs_reset);
    }
}

#[test]
fn buffers_on_all_queues_before_any_message_lose_nothing() {
    let (read, write) = pipe();
    let mut bench = Bench::new(vec![pipe_port("out", None, Some(write))]);
    bench.send(0, b"early");
    bench.offer_room(0, 16);
    bench.hear();
    assert_eq!(read_now(&read), b"early");
}

#[test]
fn rings_that_the_driver_left_out_are_empty() {
    let ports = Ports::new(three_ports()).unwrap();
    let guest = test_guest::Guest::new(0x10000);
    let mut handler = virtio_console::Handler::new(ports, Vec::new(), F_MULTIPORT);
    handler.notified(guest.mem(), &mut common::Watched::default());
    handler.ready(1, guest.mem(), &mut common::Watched::default());
    assert_eq!(handler.flush(guest.mem()), virtio_console::Signals::default());
}

#[test]
fn configurations_that_a_guest_could_not_use_are_refused() {
    let named = |name: &str| pipe_port(name, None, None);
    assert_eq!(Ports::new(vec![]).unwrap_err(), ConfigError::NoPorts);
    let many = (0..65).map(|_| named("")).collect();
    assert_eq!(Ports::new(many).unwrap_err(), ConfigError::TooManyPorts { count: 65 });
    let twice = Ports::new(vec![named("a"), named(""), named(""), named("a")]).unwrap_err();
    assert_eq!(
        twice,
        ConfigError::DuplicateName {
            first: 0,
            second: 3,
            name: "a".into()
        }
    );
    for name in ["two\nlines", "nul\0", &"x".repeat(129)] {
        assert!(matches!(
            Ports::new(vec![named(name)]).unwrap_err(),
            ConfigError::BadName { port: 0, .. }
        ));
    }
}

/// A driver that adds a malformed chain as often as the device looks for one: each goes back at once, and none of them
/// carries anything.
#[test]
fn endless_malformed_chains_do_not_keep_the_thread() {
    const CHAINS: u32 = 20_000;
    for queue in [rx_of(0), tx_of(0), TO_DRIVER, FROM_DRIVER] {
        let (read, _write) = pipe();
        let mut bench = Bench::new(vec![pipe_port("both", Some(read), None)]);
        // Something to say on the control queue, which has no room yet.
        bench.tell(0, DEVICE_READY, 1);
        bench.tell(0, PORT_OPEN, 1);
        let guest = bench.guest.clone();
        let eager = EagerDriver::new(&guest, &bench.queues[queue], CHAINS);

        bench.handler.notified(&eager, &mut bench.watched);

        let taken = CHAINS - eager.left();
        assert!((8..128).contains(&taken), "queue {queue}: {taken} chains in one call");
        assert!(bench.handler.wants_again(), "queue {queue}");
        assert!(!bench.handler.flush(&eager).needs_reset, "queue {queue}");
    }
}

/// A guest that resets the device over and over must not fill the host's log.
#[test]
fn guest_that_starts_again_and_again_is_complained_about_once() {
    let written = log_lines("virtio_console", || {
        let mut bench = Bench::new(three_ports());
        for _ in 0..50 {
            bench.tell(9, PORT_OPEN, 1);
            bench.queues[tx_of(0)].set_avail_idx(bench.guest.mem(), 500);
            assert!(bench.kick().needs_reset);
            bench = Bench::with_ports(bench.handler.into_ports(), F_MULTIPORT, test_guest::Guest::new(1 << 20));
        }
    });
    assert_eq!(written, 2, "one line for messages, one for rings");
}
