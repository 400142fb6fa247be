//! The device behind the transport's traits, and batches of requests.
#![cfg(feature = "transport")]

mod common;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use common::message::{Body, Caller, op, request, u32_at};
use common::queue::device_ring;
use common::{Driver, ROOT, mounted};
use test_guest::{Buffer, Guest, SplitRing};
use virtio_fs::{Fs, FsConfig, FsConfigError, MemoryFs};
use virtio_transport::{Activation, Disconnected, Interest, Interrupt, Poller, VirtioDevice, Worker};

const EVENT_IDX: u64 = 1 << 29;
const INDIRECT: u64 = 1 << 28;

/// The device registers nothing.
struct NoDescriptors;

impl Poller for NoDescriptors {
    fn add(&mut self, _: BorrowedFd<'_>, _: u32, _: Interest) -> io::Result<()> {
        panic!("a virtio-fs device waits for no descriptor")
    }

    fn modify(&mut self, _: BorrowedFd<'_>, _: u32, _: Interest) -> io::Result<()> {
        panic!("a virtio-fs device waits for no descriptor")
    }

    fn remove(&mut self, _: BorrowedFd<'_>) -> io::Result<()> {
        panic!("a virtio-fs device waits for no descriptor")
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
            worker.notified(&mut NoDescriptors);
            worker.flush(&mut NoDescriptors);
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
    worker.notified(&mut NoDescriptors);
    assert!(interrupt.is_reset_needed());
    worker.notified(&mut NoDescriptors);
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

fn forget_urgently(driver: &mut Driver, node: u64) {
    let message = request(op::FORGET, 0, node, Caller::default(), &1u64.to_le_bytes());
    driver.guest.write(driver.request_at, &message);
    let buffer = Buffer::readable(driver.request_at, u32::try_from(message.len()).unwrap());
    driver.rings[0].add(driver.guest.mem(), &[buffer]).unwrap();
    let _ = driver.handler.process(driver.guest.mem());
    assert_eq!(driver.rings[0].poll_used(driver.guest.mem()).unwrap().len, 0);
}
