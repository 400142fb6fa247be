//! A vCPU that serves what it has notified of does not wait for the host's disk.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::os::fd::AsFd;
use std::path::Path;

use common::message::{Body, Caller, op, request};
use common::{Driver, ROOT, mounted, share};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use test_guest::Buffer;
use virtio_fs::fuse_wire::Name;
use virtio_fs::passthrough::PassthroughConfig;
use virtio_fs::{Attr, DataOut, Entry, FileSystem, Handle, NodeId};

const LEN: u32 = 32 << 10;

/// A file of which the host has nothing in memory, where its file system can do without.
fn uncached(folder: &Path, name: &str) -> File {
    let path = folder.join(name);
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&vec![7; LEN as usize]).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    File::open(path).unwrap()
}

/// What the host says of reading all of it from memory alone; it begins to read it when it says no.
fn has_it_in_memory(file: &File) -> Result<bool, Errno> {
    let mut bytes = vec![0; LEN as usize];
    match preadv2(file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read == LEN as usize),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Adds a READ of the whole file, and gives the buffer for its answer.
fn add_read(driver: &mut Driver, node: u64, handle: u64) -> Buffer {
    add_read_at(driver, node, handle, 0)
}

fn add_read_at(driver: &mut Driver, node: u64, handle: u64, offset: u64) -> Buffer {
    let body = Body::new().u64(handle).u64(offset).u32(LEN).u32(0).u64(0).u32(0).u32(0);
    let message = request(op::READ, 99, node, Caller::default(), &body.0);
    driver.guest.write(driver.request_at, &message);
    let asked = Buffer::readable(driver.request_at, u32::try_from(message.len()).unwrap());
    let answer = Buffer::writable(driver.reply_at, LEN + 16);
    driver.rings[1].add(driver.guest.mem(), &[asked, answer]).unwrap();
    answer
}

fn is_answered(driver: &mut Driver, answer: Buffer) -> bool {
    let Some(used) = driver.rings[1].poll_used(driver.guest.mem()) else {
        return false;
    };
    assert_eq!(used.len, LEN + 16);
    assert!(driver.guest.bytes_of(answer)[16..].iter().all(|byte| *byte == 7));
    true
}

/// Reads a file in passing, and if that is put off by who has time. Gives whether it was.
fn is_put_off(driver: &mut Driver, node: u64, handle: u64) -> bool {
    let answer = add_read(driver, node, handle);
    let progress = driver.handler.process_in_passing(driver.guest.mem());
    assert_eq!(is_answered(driver, answer), !progress.more);
    if progress.more {
        assert!(!progress.interrupt);
        let _ = driver.handler.process(driver.guest.mem());
        assert!(is_answered(driver, answer), "whoever has time reads it");
    }
    progress.more
}

/// The host begins to read from its disk before it says that it would have to wait, and a fast disk may be done by then. So
/// what counts is how often others have to wait.
#[test]
fn data_that_is_not_in_memory_is_not_waited_for_in_passing() {
    const FILES: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    if has_it_in_memory(&uncached(folder.path(), "another")).is_err() {
        return eprintln!("skipped: this file system has its files in memory only");
    }
    let mut driver = share(folder.path(), PassthroughConfig::default());
    let (mut put_off, mut waited) = (0, 0);
    for number in 0..FILES {
        let (name, another) = (format!("file-{number}"), format!("another-{number}"));
        uncached(folder.path(), &name);
        waited += usize::from(has_it_in_memory(&uncached(folder.path(), &another)) == Ok(false));
        let node = driver.lookup(ROOT, name.as_bytes()).unwrap().node();
        let (handle, _) = driver.open(node, libc::O_RDONLY).unwrap();
        put_off += usize::from(is_put_off(&mut driver, node, handle));
        assert!(!is_put_off(&mut driver, node, handle), "now it is in memory");
    }
    if put_off == 0 && waited < FILES / 2 {
        return eprintln!("skipped: nobody waits for this disk");
    }
    assert!(put_off > 0);
}

#[test]
fn file_system_that_has_all_in_memory_is_read_in_passing() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = uncached(folder.path(), "file");
    let mut driver = share(folder.path(), PassthroughConfig::default());
    let node = driver.lookup(ROOT, b"file").unwrap().node();
    let (handle, _) = driver.open(node, libc::O_RDONLY).unwrap();
    if has_it_in_memory(&file) == Ok(false) {
        return eprintln!("skipped: /dev/shm is on a disk");
    }
    for _ in 0..2 {
        let answer = add_read(&mut driver, node, handle);
        let progress = driver.handler.process_in_passing(driver.guest.mem());
        assert!(!progress.more && is_answered(&mut driver, answer));
    }
}

/// To `preadv2` -1 is wherever the last one ended, and not an offset.
#[test]
fn offset_of_minus_one_is_no_place_to_read_from_in_passing() {
    let folder = tempfile::tempdir().unwrap();
    uncached(folder.path(), "file");
    let mut driver = share(folder.path(), PassthroughConfig::default());
    let node = driver.lookup(ROOT, b"file").unwrap().node();
    let (handle, _) = driver.open(node, libc::O_RDONLY).unwrap();
    driver.read(node, handle, 0, LEN).unwrap();
    let answer = add_read_at(&mut driver, node, handle, u64::MAX);
    let _ = driver.handler.process_in_passing(driver.guest.mem());
    assert_eq!(driver.rings[1].poll_used(driver.guest.mem()).unwrap().len, 16);
    let errno = i32::from_le_bytes(driver.guest.bytes_of(answer)[4..8].try_into().unwrap());
    assert_eq!(errno, -libc::EINVAL);
}

/// Files wherever they are, by their node IDs; the root is none of them.
struct Files(BTreeMap<NodeId, File>);

impl FileSystem for Files {
    fn lookup(&mut self, _: NodeId, _: Name<'_>) -> Result<Entry, virtio_fs::Errno> {
        Err(virtio_fs::Errno::ENOENT)
    }

    fn getattr(&mut self, _: NodeId, _: Option<Handle>) -> Result<Attr, virtio_fs::Errno> {
        Err(virtio_fs::Errno::ESTALE)
    }

    fn read(&mut self, node: NodeId, _: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<(), virtio_fs::Errno> {
        let file = self.0.get(&node).ok_or(virtio_fs::Errno::ESTALE)?;
        out.put_file(file.as_fd(), offset)
    }
}

/// A tmpfs cannot be asked for what is in memory only, as everything is; nor can procfs, which may take its time.
#[test]
fn file_in_memory_does_not_make_others_be_waited_for_in_passing() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let other = File::open("/proc/version").unwrap();
    for file in [&uncached(memory.path(), "another"), &other] {
        if has_it_in_memory(file) != Err(Errno::OPNOTSUPP) {
            return eprintln!("skipped: this host can be asked everywhere");
        }
    }
    let files = [(NodeId(2), uncached(memory.path(), "file")), (NodeId(3), other)];
    let mut driver = mounted(Files(files.into()));
    for _ in 0..2 {
        assert!(!is_put_off(&mut driver, 2, 0));
        add_read(&mut driver, 3, 0);
        let progress = driver.handler.process_in_passing(driver.guest.mem());
        assert!(progress.more && driver.rings[1].poll_used(driver.guest.mem()).is_none());
        let _ = driver.handler.process(driver.guest.mem());
        assert!(driver.rings[1].poll_used(driver.guest.mem()).unwrap().len > 16);
    }
}
