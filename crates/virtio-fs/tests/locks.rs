//! Locks that the host keeps, requests that wait for one, and requests that are taken back.

mod common;

use std::fs;

use common::message::{Body, Caller, op, request, u32_at, u64_at};
use common::{Driver, ROOT, mounted, share};
use rustix::fs::FlockOperation;
use test_guest::Buffer;
use virtio_fs::ReadOnly;
use virtio_fs::passthrough::{LockPolicy, Passthrough, PassthroughConfig};

const F_RDLCK: u32 = 0;
const F_WRLCK: u32 = 1;
const F_UNLCK: u32 = 2;
const FLOCK: u32 = 1;
const END: u64 = i64::MAX.cast_unsigned();
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const ENFILE: i32 = 23;
const ENOLCK: i32 = 37;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;

fn locking(folder: &std::path::Path) -> Driver {
    share(
        folder,
        PassthroughConfig {
            locks: LockPolicy::Host,
            ..PassthroughConfig::default()
        },
    )
}

fn arguments(handle: u64, owner: u64, range: (u64, u64), kind: u32, flags: u32) -> Vec<u8> {
    Body::new()
        .u64(handle)
        .u64(owner)
        .u64(range.0)
        .u64(range.1)
        .u32(kind)
        .u32(7)
        .u32(flags)
        .u32(0)
        .0
}

fn setlk(driver: &mut Driver, file: (u64, u64), owner: u64, range: (u64, u64), kind: u32) -> Result<(), i32> {
    driver
        .call(op::SETLK, file.0, &arguments(file.1, owner, range, kind, 0))
        .map(drop)
}

/// A file that is open for reading and writing, made unless it is there: its node and its handle.
fn open(driver: &mut Driver) -> (u64, u64) {
    open_named(driver, b"file")
}

fn open_named(driver: &mut Driver, name: &[u8]) -> (u64, u64) {
    match driver.lookup(ROOT, name) {
        Ok(entry) => (entry.node(), driver.open(entry.node(), 0o2).unwrap().0),
        Err(_) => {
            let (entry, handle) = driver.create(ROOT, name, 0o644, 0o2).unwrap();
            (entry.node(), handle)
        }
    }
}

#[test]
fn locks_of_two_owners_in_one_guest_exclude_each_other() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = locking(temp.path());
    let file = open(&mut driver);
    setlk(&mut driver, file, 1, (0, 9), F_WRLCK).unwrap();
    assert_eq!(setlk(&mut driver, file, 2, (5, END), F_RDLCK).unwrap_err(), EAGAIN);
    setlk(&mut driver, file, 2, (10, END), F_WRLCK).unwrap();
    let found = driver
        .call(op::GETLK, file.0, &arguments(file.1, 2, (0, 4), F_RDLCK, 0))
        .unwrap();
    assert_eq!(
        (u64_at(&found, 0), u64_at(&found, 8), u32_at(&found, 16)),
        (0, 9, F_WRLCK)
    );
    let free = driver
        .call(op::GETLK, file.0, &arguments(file.1, 1, (0, 4), F_WRLCK, 0))
        .unwrap();
    assert_eq!(u32_at(&free, 16), F_UNLCK);
    // close(2) of any descriptor by the owner drops all its locks on the file.
    driver
        .call(op::FLUSH, file.0, &Body::new().u64(file.1).u64(0).u64(1).0)
        .unwrap();
    setlk(&mut driver, file, 2, (0, 9), F_WRLCK).unwrap();
}

/// Each owner of a lock has a descriptor of the host, as each open file has.
#[test]
fn owners_of_locks_take_no_more_descriptors_than_open_files_may() {
    let temp = tempfile::tempdir().unwrap();
    let config = PassthroughConfig {
        locks: LockPolicy::Host,
        max_open_files: 3,
        ..PassthroughConfig::default()
    };
    let mut driver = share(temp.path(), config);
    let file = open(&mut driver);
    for owner in 1..=2 {
        setlk(&mut driver, file, owner, (0, 9), F_RDLCK).unwrap();
    }
    assert_eq!(setlk(&mut driver, file, 3, (0, 9), F_RDLCK).unwrap_err(), ENOLCK);
    assert_eq!(driver.open(file.0, 0o2).unwrap_err(), ENFILE);
    driver
        .call(op::FLUSH, file.0, &Body::new().u64(file.1).u64(0).u64(1).0)
        .unwrap();
    driver.open(file.0, 0o2).unwrap();
}

#[test]
fn locks_hold_between_guests_of_one_folder() {
    let temp = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (locking(temp.path()), locking(temp.path()));
    let (file_one, file_two) = (open(&mut one), open(&mut two));
    // Owners have the same number in both.
    setlk(&mut one, file_one, 1, (0, END), F_WRLCK).unwrap();
    assert_eq!(setlk(&mut two, file_two, 1, (0, 0), F_RDLCK).unwrap_err(), EAGAIN);
    setlk(&mut one, file_one, 1, (0, END), F_UNLCK).unwrap();
    setlk(&mut two, file_two, 1, (0, 0), F_RDLCK).unwrap();
}

#[test]
fn flock_locks_hold_against_processes_of_the_host() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = locking(temp.path());
    let (node, handle) = open(&mut driver);
    let host = fs::File::open(temp.path().join("file")).unwrap();
    driver
        .call(op::SETLK, node, &arguments(handle, 9, (0, END), F_WRLCK, FLOCK))
        .unwrap();
    assert!(rustix::fs::flock(&host, FlockOperation::NonBlockingLockShared).is_err());
    driver.release(node, handle);
    rustix::fs::flock(&host, FlockOperation::NonBlockingLockShared).unwrap();
}

/// Linux does not tell which locks go with an open file of theirs (`F_OFD_SETLK`).
#[test]
fn locks_of_a_file_that_nobody_has_open_are_gone() {
    let temp = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (locking(temp.path()), locking(temp.path()));
    let (file_one, file_two) = (open(&mut one), open(&mut two));
    let second = open(&mut one);
    setlk(&mut one, file_one, 99, (0, END), F_WRLCK).unwrap();
    one.release(file_one.0, file_one.1);
    assert_eq!(setlk(&mut two, file_two, 1, (0, END), F_WRLCK).unwrap_err(), EAGAIN);
    one.release(second.0, second.1);
    setlk(&mut two, file_two, 1, (0, END), F_WRLCK).unwrap();
}

/// A sync that is under way has the open file too.
#[test]
fn flock_lock_of_a_file_that_is_closed_does_not_wait_for_its_sync() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = locking(temp.path());
    driver.handler = driver.handler.leaving_tasks();
    let (node, handle) = open(&mut driver);
    let host = fs::File::open(temp.path().join("file")).unwrap();
    let lock = arguments(handle, 9, (0, END), F_WRLCK, FLOCK);
    driver.call(op::SETLK, node, &lock).unwrap();
    let sync = request(
        op::FSYNC,
        77,
        node,
        Caller::default(),
        &Body::new().u64(handle).u64(0).0,
    );
    let (asked, reply) = (driver.guest.readable(&sync), driver.guest.writable(64));
    driver.rings[1].add(driver.guest.mem(), &[asked, reply]).unwrap();
    let _ = driver.handler.process(driver.guest.mem());
    let task = driver.handler.take_task().expect("a task");
    let unlocks = Body::new().u64(handle).u32(0).u32(1 << 1).u64(9);
    driver.call(op::RELEASE, node, &unlocks.0).unwrap();
    rustix::fs::flock(&host, FlockOperation::NonBlockingLockExclusive).unwrap();
    task();
}

/// Puts a SETLKW into the request queue without waiting for it.
fn wait_for_lock(driver: &mut Driver, file: (u64, u64), unique: u64, at: u64) {
    let message = request(
        op::SETLKW,
        unique,
        file.0,
        Caller::default(),
        &arguments(file.1, 2, (0, END), F_WRLCK, 0),
    );
    driver.guest.write(at, &message);
    let buffers = [
        Buffer::readable(at, u32::try_from(message.len()).unwrap()),
        Buffer::writable(at + 256, 64),
    ];
    driver.rings[1].add(driver.guest.mem(), &buffers).unwrap();
    let _ = driver.handler.process(driver.guest.mem());
    assert!(driver.rings[1].poll_used(driver.guest.mem()).is_none());
    assert!(driver.handler.is_waiting());
}

#[test]
fn a_request_waits_for_its_lock_while_others_are_served() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = locking(temp.path());
    let file = open(&mut driver);
    setlk(&mut driver, file, 1, (0, END), F_WRLCK).unwrap();
    let at = driver.guest.alloc(512, 8);
    wait_for_lock(&mut driver, file, 77, at);
    assert!(driver.getattr(ROOT).is_ok());
    // The reply to this comes first, then the lock is free and the waiting request gets it.
    let message = request(
        op::SETLK,
        5,
        file.0,
        Caller::default(),
        &arguments(file.1, 1, (0, END), F_UNLCK, 0),
    );
    driver.guest.write(driver.request_at, &message);
    let buffers = [
        Buffer::readable(driver.request_at, u32::try_from(message.len()).unwrap()),
        Buffer::writable(driver.reply_at, 64),
    ];
    driver.rings[1].add(driver.guest.mem(), &buffers).unwrap();
    let _ = driver.handler.process(driver.guest.mem());
    assert_eq!(driver.rings[1].poll_all_used(driver.guest.mem()).len(), 2);
    assert!(!driver.handler.is_waiting());
    assert_eq!(
        driver.guest.read(at + 256, 16)[..16],
        [[16, 0, 0, 0, 0, 0, 0, 0], 77u64.to_le_bytes()].concat()
    );
    assert_eq!(setlk(&mut driver, file, 1, (0, 0), F_RDLCK).unwrap_err(), EAGAIN);
}

#[test]
fn an_interrupted_request_ends_without_its_lock() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = locking(temp.path());
    let file = open(&mut driver);
    setlk(&mut driver, file, 1, (0, END), F_WRLCK).unwrap();
    let at = driver.guest.alloc(512, 8);
    wait_for_lock(&mut driver, file, 77, at);
    for (unique, ends) in [(76u64, false), (77, true)] {
        let message = request(
            op::INTERRUPT,
            unique | 1 << 63,
            0,
            Caller::default(),
            &unique.to_le_bytes(),
        );
        let buffer = driver.guest.readable(&message);
        driver.rings[0].add(driver.guest.mem(), &[buffer]).unwrap();
        let _ = driver.handler.process(driver.guest.mem());
        assert_eq!(driver.rings[0].poll_used(driver.guest.mem()).unwrap().len, 0);
        assert_eq!(driver.rings[1].poll_used(driver.guest.mem()).is_some(), ends);
    }
    assert_eq!(driver.guest.read(at + 260, 4), (-EINTR).to_le_bytes());
    assert!(!driver.handler.is_waiting());
    setlk(&mut driver, file, 1, (0, END), F_UNLCK).unwrap();
    setlk(&mut driver, file, 3, (0, END), F_WRLCK).unwrap();
}

#[test]
fn ranges_that_are_none_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = locking(temp.path());
    let file = open(&mut driver);
    for (range, kind) in [
        ((9, 0), F_WRLCK),
        ((1 << 63, END), F_WRLCK),
        ((u64::MAX, u64::MAX), F_RDLCK),
        ((0, 1), 9),
    ] {
        assert_eq!(
            setlk(&mut driver, file, 1, range, kind).unwrap_err(),
            EINVAL,
            "{range:?}"
        );
    }
}

#[test]
fn locks_stay_in_the_guest_unless_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = share(temp.path(), PassthroughConfig::default());
    let file = open(&mut driver);
    assert_eq!(setlk(&mut driver, file, 1, (0, 1), F_WRLCK).unwrap_err(), ENOSYS);
    let flags = u32_at(&driver.init(), 12);
    assert_eq!(flags & (1 << 1 | 1 << 10), 0);
    let flags = u32_at(&locking(temp.path()).init(), 12);
    assert_eq!(flags & (1 << 1 | 1 << 10), 1 << 1 | 1 << 10);
}

/// An exclusive lock of a file that it may only read would let a guest stop the host's writers.
#[test]
fn read_only_shares_take_shared_locks_only() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("file"), b"host").unwrap();
    let config = PassthroughConfig {
        locks: LockPolicy::Host,
        read_only: true,
        ..PassthroughConfig::default()
    };
    let writable = PassthroughConfig {
        read_only: false,
        ..config.clone()
    };
    let wrapped = mounted(ReadOnly(Passthrough::new(temp.path(), writable).unwrap()));
    let host = fs::File::open(temp.path().join("file")).unwrap();
    for mut driver in [share(temp.path(), config), wrapped] {
        let node = driver.lookup(ROOT, b"file").unwrap().node();
        let (handle, _) = driver.open(node, 0).unwrap();
        for flags in [0, FLOCK] {
            let lock = |kind| arguments(handle, 9, (0, END), kind, flags);
            for opcode in [op::SETLK, op::SETLKW] {
                assert_eq!(driver.call(opcode, node, &lock(F_WRLCK)).unwrap_err(), EROFS);
            }
            rustix::fs::flock(&host, FlockOperation::NonBlockingLockShared).unwrap();
            rustix::fs::flock(&host, FlockOperation::Unlock).unwrap();
            driver.call(op::SETLK, node, &lock(F_RDLCK)).unwrap();
            driver.call(op::GETLK, node, &lock(F_WRLCK)).map(drop).unwrap();
            driver.call(op::SETLK, node, &lock(F_UNLCK)).unwrap();
        }
    }
}

#[test]
fn forgetting_a_file_drops_its_locks_and_no_others() {
    let temp = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (locking(temp.path()), locking(temp.path()));
    let names = [b"a", b"b", b"c"];
    let mut files = [[(0, 0); 3]; 2];
    for (driver, files) in [&mut one, &mut two].into_iter().zip(&mut files) {
        for (name, file) in names.iter().zip(files) {
            *file = open_named(driver, *name);
        }
    }
    for (owner, file) in [
        (u64::MAX, files[0][0]),
        (0, files[0][1]),
        (7, files[0][1]),
        (0, files[0][2]),
    ] {
        setlk(&mut one, file, owner, (owner & 7, owner & 7), F_WRLCK).unwrap();
    }
    one.release(files[0][1].0, files[0][1].1);
    one.forget(files[0][1].0, 1);
    let free = files[1].map(|file| setlk(&mut two, file, 1, (0, END), F_WRLCK));
    assert_eq!(free, [Err(EAGAIN), Ok(()), Err(EAGAIN)]);
}

/// A program that runs cannot be opened for writing, nor does one run that is.
#[test]
fn programs_of_the_host_run_while_the_guest_has_read_locks_on_them() {
    let temp = tempfile::tempdir().unwrap();
    let program = temp.path().join("file");
    fs::copy("/bin/sleep", &program).unwrap();
    let lock = |driver: &mut Driver| {
        let node = driver.lookup(ROOT, b"file").unwrap().node();
        let (handle, _) = driver.open(node, 0).unwrap();
        setlk(driver, (node, handle), 1, (0, END), F_RDLCK)
    };
    let mut running = std::process::Command::new(&program).arg("1000").spawn().unwrap();
    let locked = lock(&mut locking(temp.path()));
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(locked, Ok(()));
    let config = PassthroughConfig {
        locks: LockPolicy::Host,
        ..PassthroughConfig::default()
    };
    let mut driver = mounted(ReadOnly(Passthrough::new(temp.path(), config).unwrap()));
    assert_eq!(lock(&mut driver), Ok(()));
    let run = std::process::Command::new(&program).arg("0").status();
    assert!(run.is_ok_and(|status| status.success()));
}
