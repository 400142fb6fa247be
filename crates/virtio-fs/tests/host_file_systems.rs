//! File systems of the host that have ways of their own. They are mounted for this, which takes root.

mod common;

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::kernel::Mounted;
use common::{Driver, ROOT, share};
use rustix::mount::{MountFlags, UnmountFlags};
use virtio_fs::fuse_wire::Name;
use virtio_fs::passthrough::PassthroughConfig;
use virtio_fs::{Attr, Entry, Errno, FileKind, FileSystem, Handle, NodeId, Options};

/// Mounts for as long as this is there.
struct Mounts {
    mounted: Vec<PathBuf>,
    temp: tempfile::TempDir,
}

impl Mounts {
    /// A file system mounted on a new folder.
    fn of(kind: &str) -> Option<(Self, PathBuf)> {
        let mut mounts = Self {
            mounted: Vec::new(),
            temp: tempfile::tempdir().unwrap(),
        };
        let at = mounts.temp.path().join("at");
        fs::create_dir(&at).unwrap();
        mounts.add(kind, &at, "").then_some((mounts, at))
    }

    /// An overlayfs over what `fill` has put into its lower folder.
    fn of_overlay(fill: impl FnOnce(&Path)) -> Option<(Self, PathBuf)> {
        // The folder for temporary files may be an overlayfs itself, which takes no other one for a layer.
        let (mut mounts, layers) = Self::of("tmpfs")?;
        let [lower, upper, work, at] = ["lower", "upper", "work", "at"].map(|name| layers.join(name));
        for folder in [&lower, &upper, &work, &at] {
            fs::create_dir(folder).unwrap();
        }
        fill(&lower);
        // The clock for times of birth moves some milliseconds at a time.
        std::thread::sleep(Duration::from_millis(50));
        let [lower, upper, work] = [lower, upper, work].map(|folder| folder.display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        mounts.add("overlay", &at, &options).then_some((mounts, at))
    }

    fn add(&mut self, kind: &str, at: &Path, options: &str) -> bool {
        let options = CString::new(options).unwrap();
        match rustix::mount::mount(kind, at, kind, MountFlags::empty(), options.as_c_str()) {
            Ok(()) => self.mounted.push(at.to_path_buf()),
            Err(error) => {
                eprintln!("skipped: {kind} cannot be mounted here: {error}");
                return false;
            }
        }
        true
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for at in self.mounted.iter().rev() {
            rustix::mount::unmount(at, UnmountFlags::DETACH).unwrap();
        }
    }
}

/// A driver of a share that keeps the descriptor of one inode.
fn forgetful(folder: &Path) -> Driver {
    let config = PassthroughConfig {
        cached_descriptors: 1,
        ..PassthroughConfig::default()
    };
    share(folder, config)
}

/// Overlayfs shows another time of birth then. The guest had two inodes for one file: two caches and two tables of locks.
#[test]
fn file_of_overlayfs_is_the_same_after_the_first_write() {
    let Some((_mounts, at)) = Mounts::of_overlay(|lower| fs::write(lower.join("file"), "lower").unwrap()) else {
        return;
    };
    let mut driver = forgetful(&at);
    let before = driver.lookup(ROOT, b"file").unwrap().node();
    let (handle, _) = driver.open(before, libc::O_RDWR).unwrap();
    driver.write(before, handle, 0, b"upper", 0).unwrap();
    assert_eq!(driver.lookup(ROOT, b"file").unwrap().node(), before);
    driver.release(before, handle);
    assert_eq!(driver.lookup(ROOT, b"file").unwrap().node(), before);
}

/// It was ESTALE for good, as the folder of a program that works in it is not looked up again.
#[test]
fn folder_of_overlayfs_is_found_again_after_something_was_made_in_it() {
    let fill = |lower: &Path| {
        for name in ["work", "other"] {
            fs::create_dir(lower.join(name)).unwrap();
        }
    };
    let Some((_mounts, at)) = Mounts::of_overlay(fill) else {
        return;
    };
    let mut driver = forgetful(&at);
    let work = driver.lookup(ROOT, b"work").unwrap().node();
    driver.mkdir(work, b"new", 0o755).unwrap();
    let other = driver.lookup(ROOT, b"other").unwrap().node();
    assert_eq!(driver.list(other, 4096).unwrap(), [".", ".."]);
    assert_eq!(driver.getattr(work).map(drop), Ok(()));
    let mut names = driver.list(work, 4096).unwrap();
    names.sort();
    assert_eq!(names, [".", "..", "new"]);
    assert_eq!(driver.lookup(ROOT, b"work").unwrap().node(), work);
}

/// One mounted beneath the share, too.
#[test]
fn file_of_overlayfs_beneath_the_share_is_the_same_after_the_first_write() {
    let Some((_mounts, at)) = Mounts::of_overlay(|lower| fs::write(lower.join("file"), "lower").unwrap()) else {
        return;
    };
    let mut driver = forgetful(at.parent().unwrap());
    let folder = driver.lookup(ROOT, b"at").unwrap().node();
    let before = driver.lookup(folder, b"file").unwrap().node();
    let (handle, _) = driver.open(before, libc::O_WRONLY).unwrap();
    driver.write(before, handle, 0, b"upper", 0).unwrap();
    driver.release(before, handle);
    assert_eq!(driver.lookup(folder, b"file").unwrap().node(), before);
}

/// Ramfs counts entries for offsets, as tmpfs did before Linux 6.6: those of removed entries made others be left out.
#[test]
fn folder_that_is_emptied_while_another_one_is_listed_is_listed_whole() {
    let Some((_mounts, at)) = Mounts::of("ramfs") else {
        return;
    };
    fs::create_dir_all(at.join("big/deep")).unwrap();
    for number in 0..400 {
        fs::write(at.join(format!("big/{number}")), "").unwrap();
    }
    let mut driver = share(&at, PassthroughConfig::default());
    let big = driver.lookup(ROOT, b"big").unwrap().node();
    let (handle, mut offset, mut listed) = (driver.opendir(big).unwrap(), 0, 0);
    loop {
        let names = driver.list_part((big, handle), &mut offset, 1024).unwrap();
        if names.is_empty() {
            break;
        }
        for name in names.iter().filter(|name| name.parse::<u32>().is_ok()) {
            driver.unlink(big, name.as_bytes()).unwrap();
            listed += 1;
        }
        let deep = driver.lookup(big, b"deep").unwrap().node();
        driver.list(deep, 1024).unwrap();
    }
    assert_eq!(listed, 400);
}

/// A file that another client replaces by one with its inode number, as NFS shows it: no time of birth, and what is gone is stale.
struct Replaced(Arc<AtomicU64>);

impl Replaced {
    fn is_there(&self) -> NodeId {
        NodeId(self.0.load(Ordering::Relaxed))
    }
}

impl FileSystem for Replaced {
    fn options(&self) -> Options {
        Options {
            entry_valid: Duration::ZERO,
            attr_valid: Duration::ZERO,
            ..Options::default()
        }
    }

    fn lookup(&mut self, _: NodeId, _: Name<'_>) -> Result<Entry, Errno> {
        let node = self.is_there();
        let attr = self.getattr(node, None)?;
        Ok(Entry { node, attr })
    }

    fn getattr(&mut self, node: NodeId, _: Option<Handle>) -> Result<Attr, Errno> {
        let (ino, kind) = match node {
            NodeId::ROOT => (1, FileKind::Directory),
            node if node == self.is_there() => (7, FileKind::Regular),
            _ => return Err(Errno::ESTALE),
        };
        Ok(Attr {
            ino,
            mode: kind.mode() | 0o777,
            nlink: 1,
            ..Attr::default()
        })
    }
}

/// It was taken for the old one as long as that had a descriptor, and so was ESTALE whatever the guest did.
#[test]
fn file_that_was_replaced_by_one_with_its_number_is_another_one() {
    let temp = tempfile::tempdir().unwrap();
    let node = Arc::new(AtomicU64::new(2));
    let Some(_mounted) = Mounted::new(temp.path(), Replaced(Arc::clone(&node))) else {
        return;
    };
    let mut driver = share(temp.path(), PassthroughConfig::default());
    let before = driver.lookup(ROOT, b"file").unwrap();
    assert_eq!(driver.getxattr(before.node(), b"user.name", 0), Err(libc::EOPNOTSUPP));
    node.store(3, Ordering::Relaxed);
    assert_eq!(driver.getattr(before.node()).map(drop), Err(libc::ESTALE));
    let after = driver.lookup(ROOT, b"file").unwrap();
    assert_eq!(after.attr().ino(), before.attr().ino());
    assert_ne!(after.node(), before.node());
    assert_eq!(driver.getattr(after.node()).map(drop), Ok(()));
}
