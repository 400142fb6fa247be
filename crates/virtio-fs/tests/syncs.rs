//! FSYNC, FSYNCDIR and SYNCFS: what a disk takes long for, while others are served.

mod common;

use common::message::{Body, Caller, op, request, u32_at, u64_at};
use common::{Driver, ROOT, share};
use test_guest::Buffer;
use virtio_fs::Task;
use virtio_fs::passthrough::PassthroughConfig;

const EIO: i32 = 5;
const EBADF: i32 = 9;

/// A driver of a folder whose tasks are the test's to run, and a file that is open in it: its node and its handle.
fn leaving_tasks(folder: &std::path::Path) -> (Driver, (u64, u64)) {
    let mut driver = share(folder, PassthroughConfig::default());
    driver.handler = driver.handler.leaving_tasks();
    let (entry, handle) = driver.create(ROOT, b"file", 0o644, 0o2).unwrap();
    (driver, (entry.node(), handle))
}

/// Puts a request into the queue without waiting for it. Gives where its reply will be.
fn begin(driver: &mut Driver, opcode: u32, node: u64, body: &[u8], unique: u64) -> Buffer {
    let message = request(opcode, unique, node, Caller::default(), body);
    let (asked, reply) = (driver.guest.readable(&message), driver.guest.writable(64));
    driver.rings[1].add(driver.guest.mem(), &[asked, reply]).unwrap();
    let _ = driver.handler.process(driver.guest.mem());
    reply
}

fn sync_of(handle: u64) -> Vec<u8> {
    Body::new().u64(handle).u32(0).u32(0).0
}

/// How many replies came.
fn replies(driver: &mut Driver) -> usize {
    let _ = driver.handler.process(driver.guest.mem());
    driver.rings[1].poll_all_used(driver.guest.mem()).len()
}

fn only_task(driver: &mut Driver) -> Task {
    let task = driver.handler.take_task().expect("a task");
    assert!(driver.handler.take_task().is_none());
    task
}

fn errno(driver: &Driver, reply: Buffer, unique: u64) -> i32 {
    let bytes = driver.guest.bytes_of(reply);
    assert_eq!((u32_at(&bytes, 0), u64_at(&bytes, 8)), (16, unique));
    -u32_at(&bytes, 4).cast_signed()
}

#[test]
fn syncs_wait_for_the_disk_while_others_are_served() {
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, handle)) = leaving_tasks(temp.path());
    let folder = driver.opendir(ROOT).unwrap();
    for (opcode, of, body) in [
        (op::FSYNC, node, sync_of(handle)),
        (op::FSYNCDIR, ROOT, sync_of(folder)),
        (op::SYNCFS, ROOT, vec![0; 8]),
    ] {
        let reply = begin(&mut driver, opcode, of, &body, 77);
        let task = only_task(&mut driver);
        assert_eq!(replies(&mut driver), 0, "{opcode}");
        assert_eq!(driver.write(node, handle, 0, b"meanwhile", 0), Ok(9));
        assert!(driver.getattr(ROOT).is_ok());

        std::thread::spawn(task).join().unwrap();

        assert_eq!(replies(&mut driver), 1, "{opcode}");
        assert_eq!(errno(&driver, reply, 77), 0, "{opcode}");
    }
    assert_eq!(driver.handler.stats().aside, 3);
}

#[test]
fn sync_of_a_file_that_is_closed_and_removed_meanwhile_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, handle)) = leaving_tasks(temp.path());
    let reply = begin(&mut driver, op::FSYNC, node, &sync_of(handle), 77);
    driver.release(node, handle);
    driver.unlink(ROOT, b"file").unwrap();
    driver.forget(node, 1);
    only_task(&mut driver)();
    assert_eq!(replies(&mut driver), 1);
    assert_eq!(errno(&driver, reply, 77), 0);
}

#[test]
fn sync_whose_task_is_dropped_has_failed() {
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, handle)) = leaving_tasks(temp.path());
    let reply = begin(&mut driver, op::FSYNC, node, &sync_of(handle), 77);
    drop(only_task(&mut driver));
    assert_eq!(replies(&mut driver), 1);
    assert_eq!(errno(&driver, reply, 77), EIO);
}

#[test]
fn sync_of_what_is_not_open_is_refused_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, handle)) = leaving_tasks(temp.path());
    driver.release(node, handle);
    assert_eq!(driver.call(op::FSYNC, node, &sync_of(handle)).unwrap_err(), EBADF);
    assert!(driver.handler.take_task().is_none());
}

/// A host's fsync cannot be broken off, and a program that is told EINTR would not know what is on the disk.
#[test]
fn interrupt_does_not_end_a_sync() {
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, handle)) = leaving_tasks(temp.path());
    let reply = begin(&mut driver, op::FSYNC, node, &sync_of(handle), 77);
    let message = request(op::INTERRUPT, 77 | 1 << 63, 0, Caller::default(), &77u64.to_le_bytes());
    let buffer = driver.guest.readable(&message);
    driver.rings[0].add(driver.guest.mem(), &[buffer]).unwrap();
    assert_eq!(replies(&mut driver), 0);
    assert_eq!(driver.rings[0].poll_used(driver.guest.mem()).unwrap().len, 0);
    only_task(&mut driver)();
    assert_eq!(replies(&mut driver), 1);
    assert_eq!(errno(&driver, reply, 77), 0);
}

#[test]
fn guest_that_is_gone_gets_no_reply_and_the_next_one_no_old_reply() {
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, handle)) = leaving_tasks(temp.path());
    begin(&mut driver, op::FSYNC, node, &sync_of(handle), 77);
    let task = only_task(&mut driver);
    let server = driver.handler.into_server();
    let mut next = Driver::new(server);
    next.handler = next.handler.leaving_tasks();
    next.init();
    task();
    assert_eq!(replies(&mut next), 0);
    assert!(next.lookup(ROOT, b"file").is_ok());
}

/// Puts a request into the queue, and tells whether a vCPU that has notified of it leaves it to another thread.
fn is_left_in_passing(driver: &mut Driver, opcode: u32, node: u64, body: &[u8]) -> bool {
    let message = request(opcode, 77, node, Caller::default(), body);
    let (asked, reply) = (driver.guest.readable(&message), driver.guest.writable(120));
    driver.rings[1].add(driver.guest.mem(), &[asked, reply]).unwrap();
    let progress = driver.handler.process_in_passing(driver.guest.mem());
    let answered = driver.rings[1].poll_used(driver.guest.mem()).is_some();
    assert_ne!(progress.more, answered);
    if progress.more {
        assert_eq!(replies(driver), 1);
    }
    assert_eq!(u32_at(&driver.guest.bytes_of(reply), 4), 0);
    progress.more
}

fn write_of(handle: u64, file_flags: i32) -> Vec<u8> {
    let flags = file_flags.cast_unsigned();
    let body = Body::new().u64(handle).u64(0).u32(512).u32(0).u64(0);
    body.u32(flags).u32(0).bytes(&[7; 512]).0
}

#[test]
fn write_that_waits_for_the_disk_is_not_waited_for_in_passing() {
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, _)) = leaving_tasks(temp.path());
    for (flags, left) in [(0, false), (libc::O_DSYNC, true), (libc::O_SYNC, true)] {
        let (handle, _) = driver.open(node, libc::O_WRONLY | flags).unwrap();
        let body = write_of(handle, libc::O_WRONLY | flags);
        assert_eq!(
            is_left_in_passing(&mut driver, op::WRITE, node, &body),
            left,
            "{flags:o}"
        );
    }
}

/// The host frees what was in it, which may be much.
#[test]
fn truncation_is_not_waited_for_in_passing() {
    const MODE: u32 = 1 << 0;
    const SIZE: u32 = 1 << 3;
    let temp = tempfile::tempdir().unwrap();
    let (mut driver, (node, _)) = leaving_tasks(temp.path());
    for (valid, left) in [(MODE, false), (SIZE, true), (MODE | SIZE, true)] {
        let body = Body::new().u32(valid).bytes(&[0; 84]);
        assert_eq!(
            is_left_in_passing(&mut driver, op::SETATTR, node, &body.0),
            left,
            "{valid}"
        );
    }
}

/// As that of a monitor with one thread.
#[test]
fn caller_that_does_not_take_tasks_has_them_done_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = share(temp.path(), PassthroughConfig::default());
    let (entry, handle) = driver.create(ROOT, b"file", 0o644, 0o2).unwrap();
    driver.call(op::FSYNC, entry.node(), &sync_of(handle)).unwrap();
    assert!(driver.handler.take_task().is_none());
    assert_eq!(driver.handler.stats().aside, 0);
}
