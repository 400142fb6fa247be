//! The device behind the transport's traits, and batches of requests.
#![cfg(feature = "transport")]

mod common;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use common::message::{Body, Caller, op, request, u32_at, u64_at};
use common::queue::device_ring;
use common::{Driver, ROOT, mounted};
use test_guest::{Buffer, Guest, SplitRing};
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};
use virtio_fs::{FileSystem, Fs, FsConfig, FsConfigError, FsWorker, MemoryFs, Task};
use virtio_transport::{Activation, Disconnected, Interest, Interrupt, Poller, VirtioDevice, Worker};

const EVENT_IDX: u64 = 1 << 29;
const INDIRECT: u64 = 1 << 28;

/// The device registers nothing. What takes long is the test's to run where there is a second thread.
#[derive(Default)]
struct Monitor {
    second_thread: Option<Vec<Task>>,
}

impl Poller for Monitor {
    fn add(&mut self, _: BorrowedFd<'_>, _: u32, _: Interest) -> io::Result<()> {
        panic!("a virtio-fs device waits for no descriptor")
    }

    fn modify(&mut self, _: BorrowedFd<'_>, _: u32, _: Interest) -> io::Result<()> {
        panic!("a virtio-fs device waits for no descriptor")
    }

    fn remove(&mut self, _: BorrowedFd<'_>) -> io::Result<()> {
        panic!("a virtio-fs device waits for no descriptor")
    }

    fn run_aside(&mut self, task: Task) -> Result<(), Task> {
        match &mut self.second_thread {
            Some(tasks) => tasks.push(task),
            None => return Err(task),
        }
        Ok(())
    }
}

fn device(tag: &str, request_queues: u16) -> Result<Fs, FsConfigError> {
    Fs::new(
        FsConfig {
            tag: tag.into(),
            request_queues,
        },
        Box::new(MemoryFs::new(1 << 20)),
    )
}

#[test]
fn config_space_has_the_tag_and_the_number_of_queues() {
    let fs = device("/dev/root", 3).unwrap();
    assert_eq!(fs.device_id(), 26);
    assert_eq!(fs.queue_max_sizes(), [1024; 4]);
    assert_eq!(fs.features(), EVENT_IDX | INDIRECT);
    let mut all = [0; 48];
    fs.read_config(0, &mut all);
    assert_eq!(&all[..9], b"/dev/root");
    assert_eq!(all[9..36], [0; 27]);
    assert_eq!(all[36..48], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut part = [0; 4];
    fs.read_config(36, &mut part);
    assert_eq!(part, [3, 0, 0, 0]);
    for offset in [40, 0xeff, u64::MAX] {
        let mut beyond = [0; 4];
        fs.read_config(offset, &mut beyond);
        assert_eq!(beyond, [0; 4]);
    }
}

#[test]
fn tags_and_queues_out_of_range_are_refused_by_name() {
    assert!(device(&"t".repeat(36), 1).is_ok());
    for tag in ["", &"t".repeat(37), "a\0b"] {
        let error = device(tag, 1).err().unwrap();
        assert_eq!(error, FsConfigError::Tag { tag: tag.into() });
        assert!(error.to_string().contains("36"));
    }
    for queues in [0, 65, u16::MAX] {
        assert_eq!(
            device("tag", queues).err().unwrap(),
            FsConfigError::RequestQueues {
                queues,
                tag: "tag".into()
            }
        );
    }
}

#[test]
fn a_reset_ends_what_the_guest_had_and_another_guest_can_start() {
    let mut fs = device("tag", 2).unwrap();
    for _ in 0..2 {
        let mut guest = Guest::new(1 << 20);
        let mut rings: Vec<SplitRing> = fs
            .queue_max_sizes()
            .iter()
            .map(|_| guest.ring(16).with_event_idx())
            .collect();
        let interrupt = Arc::new(Interrupt::new(Box::new(Disconnected)));
        let mut worker = fs
            .activate(Activation {
                mem: guest.shared_mem(),
                rings: rings.iter().map(device_ring).collect(),
                features: EVENT_IDX | INDIRECT,
                interrupt: Arc::clone(&interrupt),
            })
            .unwrap();
        let init = Body::new().u32(7).u32(41).u32(0).u32(0);
        // The last queue is as good as the first.
        for (queue, opcode, body) in [(1, op::INIT, init), (2, op::GETATTR, Body::new().u64(0).u64(0))] {
            let message = request(opcode, 5, ROOT, Caller::default(), &body.0);
            let (asked, answer) = (guest.readable(&message), guest.writable(256));
            rings[queue].add(guest.mem(), &[asked, answer]).unwrap();
            worker.notified(&mut Monitor::default());
            worker.flush(&mut Monitor::default());
            assert_eq!(interrupt.pending(), 1);
            interrupt.acknowledge(1);
            let used = rings[queue].poll_used(guest.mem()).unwrap();
            let reply = guest.bytes_of(answer);
            assert_eq!((u32_at(&reply, 0), u32_at(&reply, 4)), (used.len, 0));
        }
        assert_eq!(worker.next_deadline(), None);
        fs.reset(worker);
    }
}

#[test]
fn a_broken_ring_asks_for_a_reset_once_and_stops() {
    let mut fs = device("tag", 1).unwrap();
    let mut guest = Guest::new(1 << 20);
    let rings: Vec<SplitRing> = (0..2).map(|_| guest.ring(16)).collect();
    let interrupt = Arc::new(Interrupt::new(Box::new(Disconnected)));
    let mut worker = fs
        .activate(Activation {
            mem: guest.shared_mem(),
            rings: rings.iter().map(device_ring).collect(),
            features: 0,
            interrupt: Arc::clone(&interrupt),
        })
        .unwrap();
    rings[1].set_avail_idx(guest.mem(), 500);
    worker.notified(&mut Monitor::default());
    assert!(interrupt.is_reset_needed());
    worker.notified(&mut Monitor::default());
    assert_eq!(worker.next_deadline(), None);
    fs.reset(worker);
}

/// Issue: one publish and one interrupt a batch.
#[test]
fn a_batch_of_requests_is_published_once_with_one_interrupt() {
    let mut driver = mounted(MemoryFs::new(1 << 20));
    let interrupts = driver.handler.stats().interrupts;
    let message = request(op::GETATTR, 5, ROOT, Caller::default(), &[0; 16]);
    driver.guest.write(driver.request_at, &message);
    let buffers = [
        Buffer::readable(driver.request_at, u32::try_from(message.len()).unwrap()),
        Buffer::writable(driver.reply_at, 256),
    ];
    let before = driver.rings[1].used_idx(driver.guest.mem());
    driver.rings[1].want_interrupts(driver.guest.mem(), true);
    for _ in 0..20 {
        driver.rings[1].add(driver.guest.mem(), &buffers).unwrap();
    }
    let progress = driver.handler.process(driver.guest.mem());
    assert!(progress.interrupt && !progress.more && !progress.needs_reset);
    assert_eq!(driver.rings[1].used_idx(driver.guest.mem()), before + 20);
    assert_eq!(driver.handler.stats().interrupts, interrupts + 1);
    assert_eq!(driver.rings[1].poll_all_used(driver.guest.mem()).len(), 20);
    // Nothing new: nothing to interrupt for.
    assert!(!driver.handler.process(driver.guest.mem()).interrupt);
}

/// virtio 1.3, 5.11.2: FORGET comes on the high-priority queue, and has no reply.
#[test]
fn forget_on_the_high_priority_queue_is_obeyed() {
    let mut driver = mounted(MemoryFs::new(1 << 20));
    let node = driver.mkdir(ROOT, b"folder", 0o755).unwrap().node();
    driver.rmdir(ROOT, b"folder").unwrap();
    assert_eq!(driver.getattr(node).unwrap().nlink(), 0);
    forget_urgently(&mut driver, node);
    assert_eq!(driver.getattr(node).unwrap_err(), libc::ESTALE);
}

/// A device with a driver that uses EVENT_IDX, and folders that the guest knows.
struct Running {
    fs: Fs,
    guest: Guest,
    rings: Vec<SplitRing>,
    worker: FsWorker,
    interrupt: Arc<Interrupt>,
    folders: Vec<u64>,
}

impl Running {
    fn new() -> Self {
        Self::of(Box::new(MemoryFs::new(1 << 20)))
    }

    fn of(file_system: Box<dyn FileSystem>) -> Self {
        let mut fs = Fs::new(FsConfig::new("tag"), file_system).unwrap();
        let mut guest = Guest::new(1 << 20);
        let rings: Vec<SplitRing> = (0..2).map(|_| guest.ring(64).with_event_idx()).collect();
        let interrupt = Arc::new(Interrupt::new(Box::new(Disconnected)));
        let worker = fs
            .activate(Activation {
                mem: guest.shared_mem(),
                rings: rings.iter().map(device_ring).collect(),
                features: EVENT_IDX | INDIRECT,
                interrupt: Arc::clone(&interrupt),
            })
            .unwrap();
        let mut running = Self {
            fs,
            guest,
            rings,
            worker,
            interrupt,
            folders: Vec::new(),
        };
        running.ask(op::INIT, 0, &Body::new().u32(7).u32(41).u32(0).u32(0));
        for name in [b"a", b"b", b"c"] {
            let made = running.ask(op::MKDIR, ROOT, &Body::new().u32(0o755).u32(0).string(name));
            running.ask(op::RMDIR, ROOT, &Body::new().string(name));
            running.folders.push(u64_at(&made, 16));
        }
        running
    }

    /// With a guest that has sent FORGETs among its requests.
    fn quiet() -> Self {
        let mut running = Self::new();
        for _ in 0..2 {
            running.forget(ROOT);
            assert!(running.forget_needs_a_notification());
            running.worker.notified(&mut Monitor::default());
            assert_eq!(running.errno_of_getattr(ROOT), 0);
            assert_eq!(running.forgets_done(), 1);
        }
        running
    }

    fn forget_needs_a_notification(&mut self) -> bool {
        self.rings[0].wants_kick(self.guest.mem())
    }

    /// A request with its reply, and one interrupt.
    fn ask(&mut self, opcode: u32, node: u64, body: &Body) -> Vec<u8> {
        let answer = self.add(1, opcode, node, &body.0, true);
        self.worker.notified(&mut Monitor::default());
        assert_eq!(self.take_interrupt(), 1, "{opcode}");
        assert_eq!(self.done(1), 1, "{opcode}");
        self.guest.bytes_of(answer)
    }

    fn add(&mut self, queue: usize, opcode: u32, node: u64, body: &[u8], has_reply: bool) -> Buffer {
        let message = request(opcode, 5, node, Caller::default(), body);
        let (asked, answer) = (self.guest.readable(&message), self.guest.writable(256));
        let buffers = [asked, answer];
        let buffers = if has_reply { &buffers[..] } else { &buffers[..1] };
        self.rings[queue].add(self.guest.mem(), buffers).unwrap();
        answer
    }

    fn forget(&mut self, node: u64) {
        self.add(0, op::FORGET, node, &1u64.to_le_bytes(), false);
    }

    fn errno_of_getattr(&mut self, node: u64) -> i32 {
        let reply = self.ask(op::GETATTR, node, &Body::new().u64(0).u64(0));
        -u32_at(&reply, 4).cast_signed()
    }

    fn take_interrupt(&mut self) -> u32 {
        let pending = self.interrupt.pending();
        self.interrupt.acknowledge(pending);
        pending
    }

    /// What the driver finds in a used ring. It wants to be told of the next.
    fn done(&mut self, queue: usize) -> usize {
        let done = self.rings[queue].poll_all_used(self.guest.mem()).len();
        self.rings[queue].want_interrupts(self.guest.mem(), true);
        done
    }

    fn forgets_done(&mut self) -> usize {
        self.done(0)
    }

    /// The time comes that the worker asked for.
    fn pass_deadline(&mut self) {
        let deadline = self.worker.next_deadline().expect("a deadline");
        self.worker.deadline_passed(deadline, &mut Monitor::default());
    }
}

#[test]
fn forget_is_obeyed_at_once_and_shown_with_the_next_reply() {
    let mut running = Running::new();
    let first = running.folders[0];
    assert_eq!(running.worker.next_deadline(), None);
    running.forget(first);
    running.worker.notified(&mut Monitor::default());
    assert_eq!((running.take_interrupt(), running.forgets_done()), (0, 0));
    // The one interrupt of a reply is that of the FORGET too.
    assert_eq!(running.errno_of_getattr(first), libc::ESTALE);
    assert_eq!(running.forgets_done(), 1);
    // Nothing is held, so there is no deadline.
    assert_eq!(running.worker.next_deadline(), None);
}

#[test]
fn forgets_among_requests_need_no_notification_until_a_deadline_without_any() {
    let mut running = Running::quiet();
    let node = running.folders[0];
    running.forget(node);
    assert!(!running.forget_needs_a_notification());
    // Whatever is asked next finds it obeyed.
    assert_eq!(running.errno_of_getattr(node), libc::ESTALE);
    assert_eq!(running.forgets_done(), 1);
    running.pass_deadline();
    running.pass_deadline();
    assert_eq!(running.worker.next_deadline(), None);
    running.forget(ROOT);
    assert!(running.forget_needs_a_notification());
}

#[test]
fn forget_of_a_guest_that_falls_silent_is_obeyed_and_shown_at_the_deadline() {
    let mut running = Running::quiet();
    let node = running.folders[0];
    running.forget(node);
    assert!(!running.forget_needs_a_notification());
    running.pass_deadline();
    assert_eq!((running.take_interrupt(), running.forgets_done()), (1, 1));
    assert_eq!(running.errno_of_getattr(node), libc::ESTALE);
}

#[test]
fn forget_just_before_notifications_are_asked_for_again_is_not_lost() {
    let mut running = Running::quiet();
    running.pass_deadline();
    running.forget(running.folders[0]);
    assert!(!running.forget_needs_a_notification());
    // The second deadline without one among requests: it is found on the way.
    running.pass_deadline();
    assert_eq!(running.forgets_done(), 1);
    running.forget(ROOT);
    assert!(running.forget_needs_a_notification());
}

/// A guest that drops what it has cached.
#[test]
fn forgets_without_requests_are_notified_for_and_shown_together() {
    let mut running = Running::new();
    for _ in 0..5 {
        running.forget(ROOT);
        assert!(running.forget_needs_a_notification());
        running.worker.notified(&mut Monitor::default());
        assert_eq!((running.take_interrupt(), running.forgets_done()), (0, 0));
    }
    running.pass_deadline();
    assert_eq!((running.take_interrupt(), running.forgets_done()), (1, 5));
    assert_eq!(running.worker.next_deadline(), None);
}

#[test]
fn forgets_are_shown_before_their_ring_is_full_of_them() {
    let mut running = Running::new();
    for count in 1..=32 {
        running.forget(ROOT);
        running.worker.notified(&mut Monitor::default());
        let shown = if count % 16 == 0 { 16 } else { 0 };
        assert_eq!(running.forgets_done(), shown, "{count}");
    }
}

#[test]
fn what_is_held_is_shown_to_a_driver_that_stops() {
    let mut running = Running::new();
    running.forget(running.folders[0]);
    running.worker.notified(&mut Monitor::default());
    running.worker.finish(Duration::ZERO);
    assert_eq!(running.forgets_done(), 1);
    running.fs.reset(running.worker);
}

/// Another monitor's loop may know nothing of deadlines.
#[test]
fn handler_of_a_caller_without_deadlines_holds_nothing() {
    let mut driver = mounted(MemoryFs::new(1 << 20));
    for _ in 0..2 {
        forget_urgently(&mut driver, 99);
        assert!(!driver.handler.process(driver.guest.mem()).held);
        assert!(
            driver.rings[0]
                .add(driver.guest.mem(), &[Buffer::readable(driver.request_at, 1)])
                .is_some()
        );
        assert!(driver.rings[0].wants_kick(driver.guest.mem()));
        let _ = driver.handler.process(driver.guest.mem());
        assert_eq!(driver.rings[0].poll_all_used(driver.guest.mem()).len(), 1);
    }
}

fn forget_urgently(driver: &mut Driver, node: u64) {
    let message = request(op::FORGET, 0, node, Caller::default(), &1u64.to_le_bytes());
    driver.guest.write(driver.request_at, &message);
    let buffer = Buffer::readable(driver.request_at, u32::try_from(message.len()).unwrap());
    driver.rings[0].add(driver.guest.mem(), &[buffer]).unwrap();
    let _ = driver.handler.process(driver.guest.mem());
    assert_eq!(driver.rings[0].poll_used(driver.guest.mem()).unwrap().len, 0);
}

#[test]
fn short_requests_are_answered_in_passing() {
    let mut running = Running::new();
    let getattr = Body::new().u64(0).u64(0);
    running.add(1, op::GETATTR, ROOT, &getattr.0, true);
    running.add(1, op::LOOKUP, ROOT, &Body::new().string(b"none").0, true);

    assert!(running.worker.notified_in_passing(&mut Monitor::default()));

    assert_eq!((running.take_interrupt(), running.done(1)), (1, 2));
}

#[test]
fn request_that_may_take_long_is_left_with_all_behind_it_and_answered_in_order() {
    let mut running = Running::new();
    let getattr = Body::new().u64(0).u64(0);
    running.add(1, op::GETATTR, ROOT, &getattr.0, true);
    running.add(1, op::FSYNC, ROOT, &Body::new().u64(0).u64(0).0, true);
    running.add(1, op::GETATTR, ROOT, &getattr.0, true);

    assert!(!running.worker.notified_in_passing(&mut Monitor::default()));
    assert_eq!(running.done(1), 1, "what comes before it");
    assert_eq!(running.worker.next_deadline(), None, "the caller was told already");

    running.worker.notified(&mut Monitor::default());
    assert_eq!(running.done(1), 2);
}

#[test]
fn data_of_more_than_64_kib_is_left() {
    let mut running = Running::new();
    for (room, in_passing) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let body = Body::new().u64(0).u64(0).u32(room).u32(0).u64(0).u32(0).u32(0);
        let message = request(op::READ, 5, ROOT, Caller::default(), &body.0);
        let buffers = [running.guest.readable(&message), running.guest.writable(room as usize)];
        running.rings[1].add(running.guest.mem(), &buffers).unwrap();
        assert_eq!(
            running.worker.notified_in_passing(&mut Monitor::default()),
            in_passing,
            "{room}"
        );
        running.worker.notified(&mut Monitor::default());
        assert_eq!(running.done(1), 1, "{room}");
    }
}

#[test]
fn ninth_request_is_not_answered_in_passing() {
    let mut running = Running::new();
    for _ in 0..9 {
        running.add(1, op::GETATTR, ROOT, &Body::new().u64(0).u64(0).0, true);
    }
    assert!(!running.worker.notified_in_passing(&mut Monitor::default()));
    assert_eq!(running.done(1), 8);
    running.worker.notified(&mut Monitor::default());
    assert_eq!(running.done(1), 1);
}

#[test]
fn broken_ring_found_in_passing_asks_for_a_reset() {
    let mut running = Running::new();
    let index = running.rings[1].avail_idx();
    running.rings[1].set_avail_idx(running.guest.mem(), index.wrapping_add(1000));
    assert!(running.worker.notified_in_passing(&mut Monitor::default()));
    assert!(running.interrupt.is_reset_needed());
}

/// A share of a folder that was notified of a SYNCFS.
fn syncing(folder: &std::path::Path, monitor: &mut Monitor) -> Running {
    let passthrough = Passthrough::new(folder, PassthroughConfig::default()).unwrap();
    let mut running = Running::of(Box::new(passthrough));
    running.add(1, op::SYNCFS, ROOT, &Body::new().u64(0).0, true);
    running.worker.notified(monitor);
    running
}

fn with_second_thread() -> Monitor {
    Monitor {
        second_thread: Some(Vec::new()),
    }
}

#[test]
fn sync_is_left_to_another_thread_and_answered_when_that_wakes_the_worker() {
    let temp = tempfile::tempdir().unwrap();
    let mut monitor = with_second_thread();
    let mut running = syncing(temp.path(), &mut monitor);
    assert_eq!((running.take_interrupt(), running.done(1)), (0, 0));
    assert_eq!(running.worker.next_deadline(), None, "nobody looks again and again");
    assert_eq!(running.errno_of_getattr(ROOT), 0);

    let tasks = monitor.second_thread.as_mut().unwrap();
    tasks.pop().unwrap()();
    running.worker.notified(&mut monitor);

    assert_eq!((running.take_interrupt(), running.done(1)), (1, 1));
    assert!(monitor.second_thread.unwrap().is_empty());
}

#[test]
fn nothing_is_answered_in_passing_while_a_sync_is_being_done() {
    let temp = tempfile::tempdir().unwrap();
    let mut monitor = with_second_thread();
    let mut running = syncing(temp.path(), &mut monitor);
    running.add(1, op::GETATTR, ROOT, &Body::new().u64(0).u64(0).0, true);

    assert!(!running.worker.notified_in_passing(&mut monitor));
    assert_eq!(running.done(1), 0);
    running.worker.notified(&mut monitor);
    assert_eq!(running.done(1), 1);

    monitor.second_thread.unwrap().pop().unwrap()();
    running.worker.notified(&mut Monitor::default());
    running.add(1, op::GETATTR, ROOT, &Body::new().u64(0).u64(0).0, true);
    assert!(running.worker.notified_in_passing(&mut Monitor::default()));
    assert_eq!(running.done(1), 2);
}

#[test]
fn sync_where_there_is_no_other_thread_is_done_by_the_worker() {
    let temp = tempfile::tempdir().unwrap();
    let mut running = syncing(temp.path(), &mut Monitor::default());
    running.pass_deadline();
    assert_eq!((running.take_interrupt(), running.done(1)), (1, 1));
    assert_eq!(running.worker.next_deadline(), None);
}
