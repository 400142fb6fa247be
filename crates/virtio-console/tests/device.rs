//! The console behind the transport's traits.
#![cfg(feature = "transport")]

mod common;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use common::{device_ring, pipe, pipe_port, read_now, terminal_port};
use test_guest::{Guest, SplitRing};
use virtio_console::{Console, ConsoleConfig, ConsoleWorker, F_MULTIPORT, F_SIZE, Size, TerminalSize};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use virtio_transport::{
    ActivateError, Activation, Disconnected, Interest, Interrupt, Poller, Readiness, VirtioDevice, Worker,
};

#[derive(Default)]
struct Registered(Vec<(i32, u32, Interest)>);

impl Poller for Registered {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        if self.0.iter().any(|(known, ..)| *known == fd.as_raw_fd()) {
            return Err(io::Error::from_raw_os_error(17));
        }
        self.0.push((fd.as_raw_fd(), token, interest));
        Ok(())
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.remove(fd)?;
        self.add(fd, token, interest)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.retain(|(known, ..)| *known != fd.as_raw_fd());
        Ok(())
    }
}

fn activation(guest: &Guest, queues: &[SplitRing], features: u64) -> Activation {
    Activation {
        mem: guest.shared_mem(),
        rings: queues.iter().map(device_ring).collect(),
        features,
        interrupt: Arc::new(Interrupt::new(Box::new(Disconnected))),
    }
}

fn queues(guest: &mut Guest, console: &Console) -> Vec<SplitRing> {
    console.queue_max_sizes().iter().map(|size| guest.ring(*size)).collect()
}

#[test]
fn console_describes_itself_as_the_standard_says() {
    let size = TerminalSize::new(Size { cols: 80, rows: 24 });
    let ports = vec![terminal_port(&size, None, None), pipe_port("a", None, None)];
    let console = Console::new(ConsoleConfig { ports }).unwrap();

    assert_eq!(console.device_id(), 3);
    assert_eq!(console.queue_max_sizes().len(), 6);
    assert!(console.queue_max_sizes().iter().all(|size| size.is_power_of_two()));
    assert_eq!(console.features() & 3, F_SIZE | F_MULTIPORT);
}

#[test]
fn config_space_has_the_size_of_now_and_zeros_beyond_its_end() {
    let size = TerminalSize::new(Size { cols: 80, rows: 24 });
    let console = Console::new(ConsoleConfig {
        ports: vec![terminal_port(&size, None, None)],
    })
    .unwrap();
    console.control().resize(Size {
        cols: 0x1234,
        rows: 0x5678,
    });

    let mut whole = [0; 16];
    console.read_config(0, &mut whole);
    assert_eq!(whole, [0x34, 0x12, 0x78, 0x56, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for offset in (0..0xf00).chain([u64::MAX]) {
        for len in [1, 2, 4, 8] {
            let mut part = vec![0; len];
            console.read_config(offset, &mut part);
            let expected: Vec<u8> = (0..len)
                .map(|at| {
                    usize::try_from(offset)
                        .unwrap()
                        .checked_add(at)
                        .and_then(|at| whole.get(at))
                })
                .map(|byte| byte.copied().unwrap_or(0))
                .collect();
            assert_eq!(part, expected, "{len} bytes at {offset}");
        }
    }
}

#[test]
fn activation_without_control_queues_is_refused_and_can_be_tried_again() {
    let mut guest = Guest::new(1 << 20);
    let mut console = Console::new(ConsoleConfig {
        ports: vec![pipe_port("a", None, None)],
    })
    .unwrap();
    let queues = queues(&mut guest, &console);
    let mut without = activation(&guest, &queues, F_MULTIPORT);
    without.rings[3] = Ring::new(Queue::new(8).unwrap());

    assert!(matches!(console.activate(without), Err(ActivateError::QueueMissing(3))));
    assert!(console.activate(activation(&guest, &queues, F_MULTIPORT)).is_ok());
}

fn send(guest: &mut Guest, queues: &mut [SplitRing], worker: &mut ConsoleWorker, bytes: &[u8]) {
    let buffer = guest.readable(bytes);
    queues[1].add(guest.mem(), &[buffer]).unwrap();
    let mut poller = Registered::default();
    worker.notified(&mut poller);
    worker.flush(&mut poller);
}

#[test]
fn output_raises_the_interrupt_and_goes_on_after_a_reset() {
    let (read, write) = pipe();
    let mut guest = Guest::new(1 << 20);
    let ports = vec![terminal_port(&TerminalSize::default(), None, Some(write))];
    let mut console = Console::new(ConsoleConfig { ports }).unwrap();
    for round in 0..2 {
        let mut queues = queues(&mut guest, &console);
        let activation = activation(&guest, &queues, 0);
        let interrupt = Arc::clone(&activation.interrupt);
        let mut worker = console.activate(activation).unwrap();

        send(&mut guest, &mut queues, &mut worker, b"hello");

        assert_eq!(interrupt.pending(), 1, "round {round}");
        assert_eq!(worker.stats().output_bytes, 5);
        console.reset(worker);
    }
    assert_eq!(read_now(&read), b"hellohello");
}

#[test]
fn reset_delivers_what_is_in_the_ring() {
    let (read, write) = pipe();
    let mut guest = Guest::new(1 << 20);
    let ports = vec![terminal_port(&TerminalSize::default(), None, Some(write))];
    let mut console = Console::new(ConsoleConfig { ports }).unwrap();
    let mut queues = queues(&mut guest, &console);
    let worker = console.activate(activation(&guest, &queues, 0)).unwrap();
    let buffer = guest.readable(b"last");
    queues[1].add(guest.mem(), &[buffer]).unwrap();

    console.reset(worker);

    assert_eq!(read_now(&read), b"last");
}

#[test]
fn descriptor_left_registered_by_an_ended_worker_is_taken_over() {
    let (read, _write) = pipe();
    let mut guest = Guest::new(1 << 20);
    let ports = vec![terminal_port(&TerminalSize::default(), Some(read), None)];
    let mut console = Console::new(ConsoleConfig { ports }).unwrap();
    let mut poller = Registered::default();
    for _ in 0..2 {
        let mut queues = queues(&mut guest, &console);
        let room = guest.writable(16);
        queues[0].add(guest.mem(), &[room]).unwrap();
        let mut worker = console.activate(activation(&guest, &queues, 0)).unwrap();
        worker.notified(&mut poller);
        assert_eq!(poller.0.len(), 1);
        assert!(poller.0[0].2.readable);
        console.reset(worker);
    }
}

#[test]
fn broken_ring_asks_the_driver_for_a_reset() {
    let mut guest = Guest::new(1 << 20);
    let mut console = Console::new(ConsoleConfig {
        ports: vec![pipe_port("a", None, None)],
    })
    .unwrap();
    let queues = queues(&mut guest, &console);
    let activation = activation(&guest, &queues, 0);
    let interrupt = Arc::clone(&activation.interrupt);
    let mut worker = console.activate(activation).unwrap();
    queues[1].set_avail_idx(guest.mem(), 1000);
    let mut poller = Registered::default();

    worker.notified(&mut poller);
    worker.ready(1, Readiness::default(), &mut poller);
    worker.flush(&mut poller);

    assert!(interrupt.is_reset_needed());
    assert_eq!(worker.next_deadline(), None);
}
