//! Folders that change, or fail, while they are listed.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::{Driver, ROOT, mounted};
use virtio_fs::fuse_wire::{Name, OpenOutFlags};
use virtio_fs::{Attr, DirEntry, DirSink, Entry, Errno, FileKind, FileSystem, Handle, MemoryFs, NodeId, Opened};

/// A tree in memory with files `0` to `count - 1` in its root.
fn in_memory(count: u32) -> Driver {
    let mut driver = mounted(MemoryFs::new(1 << 20));
    for number in 0..count {
        driver
            .create(ROOT, number.to_string().as_bytes(), 0o644, libc::O_RDWR)
            .unwrap();
    }
    driver
}

/// Lists the root in parts and does `each` with every name before the next part, as programs do. All names that were listed.
fn list_and(driver: &mut Driver, mut each: impl FnMut(&mut Driver, &str)) -> Vec<String> {
    let handle = driver.opendir(ROOT).unwrap();
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let part = driver.list_part((ROOT, handle), &mut offset, 256).unwrap();
        if part.is_empty() {
            return names;
        }
        for name in part.into_iter().filter(|name| !name.starts_with('.')) {
            each(driver, &name);
            names.push(name);
        }
        assert!(names.len() < 10_000, "the listing does not end");
    }
}

/// As `rm -r` does, which then removes the folder.
#[test]
fn a_folder_in_memory_whose_files_are_removed_while_it_is_listed_is_empty_then() {
    let mut driver = in_memory(300);
    let names = list_and(&mut driver, |driver, name| {
        driver.unlink(ROOT, name.as_bytes()).unwrap()
    });
    assert_eq!(names.len(), 300);
    assert_eq!(driver.list(ROOT, 4096).unwrap(), [".", ".."]);
}

#[test]
fn a_folder_in_memory_whose_files_are_renamed_while_it_is_listed_comes_to_an_end() {
    let mut driver = in_memory(300);
    let names = list_and(&mut driver, |driver, name| {
        let renamed = format!("{name}.old");
        driver
            .rename((ROOT, name.as_bytes()), (ROOT, renamed.as_bytes()), 0)
            .unwrap();
    });
    assert_eq!(names.len(), 300);
    let after = driver.list(ROOT, 4096).unwrap();
    assert_eq!(after.iter().filter(|name| name.ends_with(".old")).count(), 300);
}

/// Other names come, go, are replaced and exchanged.
#[test]
fn what_is_in_memory_all_along_is_listed_once() {
    const RENAME_EXCHANGE: u32 = 2;
    let mut driver = in_memory(300);
    let mut turn = 0..;
    let names = list_and(&mut driver, |driver, _| {
        let turn: u32 = turn.next().unwrap();
        // A third goes, and as many come.
        let _ = driver.unlink(ROOT, (turn % 100).to_string().as_bytes());
        let new = format!("{turn:05}-new");
        driver.create(ROOT, new.as_bytes(), 0o644, libc::O_RDWR).unwrap();
        let (replaced, exchanged) = (100 + turn % 100, 200 + turn % 100);
        let [replaced, exchanged] = [replaced, exchanged].map(|number| number.to_string());
        driver
            .rename((ROOT, new.as_bytes()), (ROOT, replaced.as_bytes()), 0)
            .unwrap();
        driver
            .rename((ROOT, b"299"), (ROOT, exchanged.as_bytes()), RENAME_EXCHANGE)
            .unwrap();
    });
    for kept in 100..300 {
        let listed = names.iter().filter(|name| **name == kept.to_string()).count();
        assert_eq!(listed, 1, "{kept}");
    }
    // Each name leads to what a lookup finds, and none is there twice.
    let mut after = driver.list(ROOT, 4096).unwrap();
    after.sort();
    let count = after.len();
    after.dedup();
    assert_eq!(after.len(), count);
    for name in after.iter().filter(|name| !name.starts_with('.')) {
        driver.lookup(ROOT, name.as_bytes()).unwrap();
    }
}

/// A folder with names behind which there is a broken part of a disk.
struct FailsMidway {
    names: Vec<&'static str>,
    /// Lookups that the guest has not taken back.
    lookups: Arc<AtomicI64>,
}

impl FileSystem for FailsMidway {
    fn lookup(&mut self, _: NodeId, _: Name<'_>) -> Result<Entry, Errno> {
        Err(Errno::ENOENT)
    }

    fn forget(&mut self, _: NodeId, count: u64) {
        self.lookups.fetch_sub(count.cast_signed(), Ordering::Relaxed);
    }

    fn getattr(&mut self, node: NodeId, _: Option<Handle>) -> Result<Attr, Errno> {
        let mode = FileKind::Directory.mode() | 0o755;
        Ok(Attr {
            ino: node.0,
            mode,
            nlink: 2,
            ..Attr::default()
        })
    }

    fn opendir(&mut self, _: NodeId, _: u32) -> Result<Opened, Errno> {
        let (handle, flags) = (Handle(1), OpenOutFlags::empty());
        Ok(Opened { handle, flags })
    }

    fn readdir(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<(), Errno> {
        self.readdirplus(node, handle, offset, sink)
    }

    fn readdirplus(&mut self, _: NodeId, _: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<(), Errno> {
        let folder = self.getattr(NodeId::ROOT, None)?;
        for (number, name) in (1..).zip(&self.names).skip(usize::try_from(offset).unwrap()) {
            let node = NodeId(10 + number);
            let attr = Attr { ino: node.0, ..folder };
            let dirent = DirEntry {
                ino: node.0,
                offset: number,
                kind: Some(FileKind::Directory),
                name: name.as_bytes(),
            };
            if !sink.push(&dirent, Some(&Entry { node, attr })) {
                return Ok(());
            }
            self.lookups.fetch_add(1, Ordering::Relaxed);
        }
        Err(Errno::EIO)
    }
}

#[test]
fn entries_before_an_error_are_listed_and_known_to_the_guest() {
    let lookups = Arc::<AtomicI64>::default();
    let mut driver = mounted(FailsMidway {
        names: vec!["a", "b", "c"],
        lookups: Arc::clone(&lookups),
    });
    let handle = driver.opendir(ROOT).unwrap();
    for size in [4096, 320, 200] {
        let (mut listed, mut offset) = (Vec::new(), 0);
        let errno = loop {
            match driver.list_plus(ROOT, handle, offset, size) {
                Ok(part) => {
                    offset = part.last().expect("the end, though there is more").next;
                    listed.extend(part);
                }
                Err(errno) => break errno,
            }
        };
        assert_eq!(errno, libc::EIO);
        let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"], "replies of {size} bytes");
        for entry in listed {
            driver.forget(entry.node, 1);
        }
        assert_eq!(lookups.load(Ordering::Relaxed), 0, "replies of {size} bytes");
    }
    let mut offset = 0;
    let names = driver.list_part((ROOT, handle), &mut offset, 4096).unwrap();
    assert_eq!(names, ["a", "b", "c"]);
    let rest = driver.list_part((ROOT, handle), &mut offset, 4096);
    assert_eq!(rest, Err(libc::EIO));
}

#[test]
fn a_folder_that_cannot_be_listed_at_all_is_an_error() {
    let mut driver = mounted(FailsMidway {
        names: Vec::new(),
        lookups: Arc::default(),
    });
    assert_eq!(driver.list(ROOT, 4096).unwrap_err(), libc::EIO);
}
