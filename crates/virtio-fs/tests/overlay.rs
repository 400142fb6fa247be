//! Virtual files over another file system, and what the init reports.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::kernel::Mounted;
use common::message::{Body, op, u32_at, u64_at};
use common::{Driver, ROOT, mounted};
use virtio_fs::fuse_wire::{Name, OpenOutFlags};
use virtio_fs::overlay::{GuestReport, Overlay, OverlayError, VirtualEntry};
use virtio_fs::passthrough::{CachePolicy, Passthrough, PassthroughConfig};
use virtio_fs::{Attr, DirEntry, DirSink, Entry, Errno, FileKind, FileSystem, Handle, MemoryFs, NodeId, Opened};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;
const ENOTEMPTY: i32 = 39;

const RENAME_EXCHANGE: u32 = 2;

fn entries() -> Vec<VirtualEntry> {
    vec![
        VirtualEntry::file("/.tessera/init", 0o755, b"\x7fELF and more".as_slice()),
        VirtualEntry::file("/.tessera/config.json", 0o644, Arc::<[u8]>::from(b"{}".as_slice())),
        VirtualEntry::folder("/proc"),
        VirtualEntry::folder("/mnt/data"),
    ]
}

/// What process 1 and others reported.
type Reports = Arc<Mutex<Vec<GuestReport>>>;

fn overlay() -> (Driver, Reports) {
    let reports = Reports::default();
    let seen = Arc::clone(&reports);
    let overlay = Overlay::new(MemoryFs::new(1 << 20), entries()).unwrap();
    (
        mounted(overlay.on_report(move |report| seen.lock().unwrap().push(report))),
        reports,
    )
}

fn ioctl(driver: &mut Driver, node: u64, pid: u32, command: u32, argument: u64) -> Result<Vec<u8>, i32> {
    driver.by.pid = pid;
    let body = Body::new().u64(0).u32(0x10).u32(command).u64(argument).u32(0).u32(0);
    driver.call(op::IOCTL, node, &body.0)
}

#[test]
fn the_exit_code_is_taken_from_process_1_on_the_root() {
    let (mut driver, reports) = overlay();
    for (argument, code) in [(0, 0), (42, 42), (0xffff_ffff, -1), (u64::MAX, -1)] {
        // The guest's kernel reads 16 bytes and gives EIO for less.
        assert_eq!(ioctl(&mut driver, ROOT, 1, 0x7602, argument).unwrap(), [0; 16]);
        assert_eq!(reports.lock().unwrap().pop(), Some(GuestReport::ExitCode(code)));
    }
}

#[test]
fn reasons_for_having_no_exit_code_are_told_apart() {
    let (mut driver, reports) = overlay();
    for reason in 1..=3 {
        ioctl(&mut driver, ROOT, 1, 0x7610, reason).unwrap();
    }
    let expected = [
        GuestReport::NotFound,
        GuestReport::NotExecutable,
        GuestReport::SetUpFailed,
    ];
    assert_eq!(*reports.lock().unwrap(), expected);
    assert_eq!(ioctl(&mut driver, ROOT, 1, 0x7610, 4).unwrap_err(), EINVAL);
    assert_eq!(ioctl(&mut driver, ROOT, 1, 0x7603, 0).unwrap_err(), ENOTTY);
}

#[test]
fn a_forged_exit_code_is_refused() {
    let (mut driver, reports) = overlay();
    for pid in [0, 2, 77, u32::MAX] {
        assert_eq!(ioctl(&mut driver, ROOT, pid, 0x7602, 0).unwrap_err(), EPERM);
        assert_eq!(ioctl(&mut driver, ROOT, pid, 0x7610, 1).unwrap_err(), EPERM);
    }
    let other = driver.lookup(ROOT, b"proc").unwrap().node();
    assert_eq!(ioctl(&mut driver, other, 1, 0x7602, 0).unwrap_err(), ENOTTY);
    assert!(reports.lock().unwrap().is_empty());
}

#[test]
fn virtual_files_are_read_and_never_changed() {
    let (mut driver, _) = overlay();
    let folder = driver.lookup(ROOT, b".tessera").unwrap().node();
    let init = driver.lookup(folder, b"init").unwrap();
    assert_eq!((init.attr().mode(), init.attr().size()), (0o100_755, 13));
    let (handle, _) = driver.open(init.node(), 0).unwrap();
    assert_eq!(driver.read(init.node(), handle, 4, 100).unwrap(), b" and more");
    assert_eq!(driver.read(init.node(), handle, 13, 100).unwrap(), b"");
    assert_eq!(driver.read(init.node(), handle, u64::MAX, 100).unwrap(), b"");
    for flags in [0o1, 0o2, 0o1000] {
        assert_eq!(driver.open(init.node(), flags).unwrap_err(), EROFS);
    }
    assert_eq!(driver.write(init.node(), handle, 0, b"x", 0).unwrap_err(), EROFS);
    assert_eq!(driver.setattr(init.node(), 1, 0, 0o777, (0, 0)).unwrap_err(), EROFS);
    assert_eq!(driver.unlink(folder, b"init").unwrap_err(), EROFS);
    assert_eq!(driver.create(folder, b"new", 0o644, 0o2).unwrap_err(), EROFS);
    assert_eq!(driver.link(init.node(), ROOT, b"copy").unwrap_err(), EXDEV);
    // A handle and a node from nowhere.
    assert!(driver.getattr(init.node() + 100).is_err());
    assert!(driver.read(u64::MAX, handle, 0, 1).is_err());
    // Linux sends these for every file; ENOSYS would switch them off for all.
    let fsync = Body::new().u64(handle).u64(0);
    assert!(driver.call(op::FSYNC, init.node(), &fsync.0).is_ok());
}

/// Linux asks for any file until one says ENOSYS, and for none then.
#[test]
fn virtual_files_are_sought_in_where_those_beneath_are() {
    let temp = tempfile::tempdir().unwrap();
    for (cache, expected) in [
        (CachePolicy::None, Ok(13)),
        (CachePolicy::Auto, Ok(13)),
        (CachePolicy::Always, Err(ENOSYS)),
    ] {
        let config = PassthroughConfig {
            cache,
            ..PassthroughConfig::default()
        };
        let host = Passthrough::new(temp.path(), config).unwrap();
        let mut driver = mounted(Overlay::new(host, entries()).unwrap());
        let folder = driver.lookup(ROOT, b".tessera").unwrap().node();
        let init = driver.lookup(folder, b"init").unwrap().node();
        let (handle, _) = driver.open(init, 0).unwrap();
        let seek = Body::new().u64(handle).u64(5).u32(4).u32(0);
        let found = driver.call(op::LSEEK, init, &seek.0).map(|reply| u64_at(&reply, 0));
        assert_eq!(found, expected, "{cache:?}");
    }
}

#[test]
fn what_is_virtual_stands_in_the_way_of_names_underneath() {
    let (mut driver, _) = overlay();
    driver.mkdir(ROOT, b"real", 0o755).unwrap();
    assert_eq!(driver.mkdir(ROOT, b".tessera", 0o755).unwrap_err(), EEXIST);
    assert_eq!(driver.rmdir(ROOT, b".tessera").unwrap_err(), EBUSY);
    assert_eq!(driver.rmdir(ROOT, b"proc").unwrap_err(), EBUSY);
    assert_eq!(driver.rename((ROOT, b"proc"), (ROOT, b"p"), 0).unwrap_err(), EBUSY);
    assert_eq!(
        driver.rename((ROOT, b"real"), (ROOT, b".tessera"), 0).unwrap_err(),
        EBUSY
    );
    assert_eq!(driver.list(ROOT, 4096).unwrap(), [".", "..", "real", "proc", "mnt"]);
}

/// A folder of the host, and a driver of it with `entries` over it. Nothing is cached.
fn over_a_folder(entries: Vec<VirtualEntry>) -> (tempfile::TempDir, Driver) {
    let host = tempfile::tempdir().unwrap();
    let config = PassthroughConfig {
        cache: CachePolicy::None,
        ..PassthroughConfig::default()
    };
    let overlay = Overlay::new(Passthrough::new(host.path(), config).unwrap(), entries).unwrap();
    (host, mounted(overlay))
}

fn sorted_names(driver: &mut Driver, folder: u64) -> Vec<String> {
    let mut names = driver.list(folder, 4096).unwrap();
    names.sort();
    names
}

/// What READDIRPLUS says that a name leads to.
fn listed_node(driver: &mut Driver, folder: u64, name: &str) -> u64 {
    let handle = driver.opendir(folder).unwrap();
    let listed = driver.list_plus(folder, handle, 0, 4096).unwrap();
    let mut named = listed.iter().filter(|entry| entry.name == name);
    let node = named.next().unwrap().node;
    assert_eq!(named.next(), None);
    node
}

#[test]
fn a_folder_of_the_host_takes_the_place_of_a_virtual_one() {
    let (host, mut driver) = over_a_folder(entries());
    fs::create_dir(host.path().join("mnt")).unwrap();
    fs::set_permissions(host.path().join("mnt"), Permissions::from_mode(0o700)).unwrap();
    let mnt = driver.lookup(ROOT, b"mnt").unwrap();
    assert_eq!(mnt.attr().mode() & 0o777, 0o700);
    // Beneath it the rest of the virtual path goes on, beside what is really there.
    driver.mkdir(mnt.node(), b"real", 0o755).unwrap();
    let virtual_data = driver.lookup(mnt.node(), b"data").unwrap().node();
    assert_eq!(sorted_names(&mut driver, mnt.node()), [".", "..", "data", "real"]);
    driver.forget(virtual_data, 1);
    fs::create_dir(host.path().join("mnt/data")).unwrap();
    assert_ne!(driver.lookup(mnt.node(), b"data").unwrap().node(), virtual_data);
}

/// Another node for the name makes Linux detach what is mounted there, and writes go to the host's folder.
#[test]
fn a_mount_point_that_the_guest_knows_stays_when_the_host_makes_one_of_that_name() {
    let (host, mut driver) = over_a_folder(vec![
        VirtualEntry::folder("/data"),
        VirtualEntry::folder("/mnt/x"),
        VirtualEntry::empty_file("/file"),
    ]);
    let mnt = driver.lookup(ROOT, b"mnt").unwrap().node();
    let places = [(ROOT, "data"), (ROOT, "mnt"), (mnt, "x"), (ROOT, "file")];
    let known = places.map(|(folder, name)| driver.lookup(folder, name.as_bytes()).unwrap().node());
    fs::create_dir_all(host.path().join("data/of-the-host")).unwrap();
    fs::create_dir_all(host.path().join("mnt/x")).unwrap();
    fs::write(host.path().join("file"), b"of the host").unwrap();

    for ((folder, name), node) in places.into_iter().zip(known) {
        assert_eq!(driver.lookup(folder, name.as_bytes()).unwrap().node(), node, "{name}");
        assert_eq!(listed_node(&mut driver, folder, name), node, "{name}");
    }
    assert_eq!(sorted_names(&mut driver, ROOT), [".", "..", "data", "file", "mnt"]);
    // The host's own are not touched through those.
    assert_eq!(driver.rmdir(ROOT, b"data").unwrap_err(), EBUSY);
    assert_eq!(driver.unlink(ROOT, b"file").unwrap_err(), EBUSY);
    assert_eq!(driver.mkdir(ROOT, b"data", 0o755).unwrap_err(), EEXIST);
    driver.mkdir(ROOT, b"other", 0o755).unwrap();
    assert_eq!(driver.rename((ROOT, b"other"), (ROOT, b"data"), 0).unwrap_err(), EBUSY);
}

/// Lookups of either kind count, and those that READDIRPLUS gives as well.
#[test]
fn the_hosts_own_is_there_once_the_guest_has_forgotten_the_mount_point() {
    let (host, mut driver) = over_a_folder(vec![VirtualEntry::folder("/data"), VirtualEntry::folder("/mnt/x")]);
    let data = listed_node(&mut driver, ROOT, "data");
    fs::create_dir(host.path().join("data")).unwrap();
    assert_eq!(listed_node(&mut driver, ROOT, "data"), data);
    assert_eq!(driver.lookup(ROOT, b"data").unwrap().node(), data);
    driver.list(ROOT, 4096).unwrap();
    driver.forget(data, 2);
    assert_eq!(driver.lookup(ROOT, b"data").unwrap().node(), data);
    driver.forget(data, 2);
    let of_host = driver.lookup(ROOT, b"data").unwrap().node();
    assert_ne!(of_host, data);
    assert_eq!(listed_node(&mut driver, ROOT, "data"), of_host);

    // A guest that starts again knows nothing.
    let mnt = driver.lookup(ROOT, b"mnt").unwrap().node();
    fs::create_dir(host.path().join("mnt")).unwrap();
    driver.init();
    assert_ne!(driver.lookup(ROOT, b"mnt").unwrap().node(), mnt);
}

/// As any folder that the host removes it is another one then. Nothing can be made in that.
#[test]
fn a_folder_that_the_host_removes_is_a_virtual_one_from_then_on() {
    let (host, mut driver) = over_a_folder(vec![VirtualEntry::folder("/data")]);
    fs::create_dir(host.path().join("data")).unwrap();
    let of_host = driver.lookup(ROOT, b"data").unwrap().node();
    fs::remove_dir(host.path().join("data")).unwrap();
    let node = driver.lookup(ROOT, b"data").unwrap().node();
    assert_ne!(node, of_host);
    assert_eq!(driver.mkdir(node, b"new", 0o755).unwrap_err(), EROFS);
    fs::create_dir(host.path().join("data")).unwrap();
    assert_eq!(driver.lookup(ROOT, b"data").unwrap().node(), node);
}

/// To the guest it is not empty, and what is virtual in it has one place.
#[test]
fn a_folder_of_the_host_with_a_mount_point_in_it_is_neither_removed_nor_replaced_nor_moved() {
    let (host, mut driver) = over_a_folder(vec![VirtualEntry::folder("/mnt/x/y"), VirtualEntry::folder("/data")]);
    fs::create_dir_all(host.path().join("mnt/x")).unwrap();
    fs::create_dir(host.path().join("other")).unwrap();
    let mnt = driver.lookup(ROOT, b"mnt").unwrap().node();
    let [at, inside, other] = [(ROOT, b"mnt".as_slice()), (mnt, b"x"), (ROOT, b"other")];
    for place in [at, inside] {
        assert_eq!(driver.rmdir(place.0, place.1).unwrap_err(), ENOTEMPTY);
        assert_eq!(driver.rename(other, place, 0).unwrap_err(), ENOTEMPTY);
        assert_eq!(driver.rename(place, (ROOT, b"elsewhere"), 0).unwrap_err(), EBUSY);
        for (from, to) in [(place, other), (other, place)] {
            assert_eq!(driver.rename(from, to, RENAME_EXCHANGE).unwrap_err(), EBUSY);
        }
    }
    assert!(host.path().join("mnt/x").is_dir() && host.path().join("other").is_dir());

    // Where nothing is virtual in it, it is the guest's to remove.
    fs::create_dir(host.path().join("data")).unwrap();
    driver.rename((ROOT, b"data"), (ROOT, b"moved"), 0).unwrap();
    fs::create_dir(host.path().join("data")).unwrap();
    driver.rename(other, (ROOT, b"data"), 0).unwrap();
    driver.rmdir(ROOT, b"data").unwrap();
    // And so is a file of the host that has the name of a folder.
    fs::remove_dir_all(host.path().join("mnt")).unwrap();
    fs::write(host.path().join("mnt"), b"a file").unwrap();
    driver.rename(at, (ROOT, b"file"), 0).unwrap();
    assert_eq!(driver.rename((ROOT, b"file"), at, 0).unwrap_err(), EBUSY);
}

/// With the kernel of this machine for the guest's.
#[test]
fn what_is_mounted_stays_when_the_host_makes_a_folder_of_that_name() {
    let (host, mount_point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = PassthroughConfig {
        cache: CachePolicy::None,
        ..PassthroughConfig::default()
    };
    let entries = vec![VirtualEntry::folder("/data"), VirtualEntry::folder("/mnt/x")];
    let overlay = Overlay::new(Passthrough::new(host.path(), config).unwrap(), entries).unwrap();
    let Some(guest) = Mounted::new(mount_point.path(), overlay) else {
        return;
    };
    let places = ["data", "mnt/x"].map(|place| mount_point.path().join(place));
    for place in &places {
        rustix::mount::mount(c"none", place, c"tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        fs::write(place.join("file"), b"in the volume").unwrap();
    }
    fs::create_dir(host.path().join("data")).unwrap();
    fs::create_dir_all(host.path().join("mnt/x")).unwrap();
    assert_eq!(fs::read_dir(mount_point.path()).unwrap().count(), 2);
    for place in &places {
        assert_eq!(fs::read(place.join("file")).unwrap(), b"in the volume", "{place:?}");
        rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    drop(guest);
}

/// A single file of the host is bound over such a one.
#[test]
fn an_empty_file_is_there_until_the_host_has_one() {
    let entries = vec![
        VirtualEntry::empty_file("/etc/app/conf"),
        VirtualEntry::empty_file("/one"),
    ];
    let (host, mut driver) = over_a_folder(entries);
    assert_eq!(sorted_names(&mut driver, ROOT), [".", "..", "etc", "one"]);
    let app = driver.lookup(ROOT, b"etc").unwrap().node();
    let app = driver.lookup(app, b"app").unwrap().node();
    let conf = driver.lookup(app, b"conf").unwrap();
    assert_eq!((conf.attr().mode(), conf.attr().size()), (0o100_644, 0));
    let (handle, _) = driver.open(conf.node(), 0).unwrap();
    assert_eq!(driver.read(conf.node(), handle, 0, 100).unwrap(), b"");
    assert_eq!(driver.open(conf.node(), 0o2).unwrap_err(), EROFS);
    assert_eq!(driver.unlink(ROOT, b"one").unwrap_err(), EBUSY);
    let exclusive = libc::O_RDWR | libc::O_EXCL;
    assert_eq!(driver.create(ROOT, b"one", 0o600, exclusive).unwrap_err(), EEXIST);

    fs::write(host.path().join("one"), b"of the host").unwrap();
    assert_eq!(driver.lookup(ROOT, b"one").unwrap().attr().size(), 11);
    assert_eq!(sorted_names(&mut driver, ROOT), [".", "..", "etc", "one"]);
    driver.unlink(ROOT, b"one").unwrap();
    assert_eq!(driver.lookup(ROOT, b"one").unwrap().attr().size(), 0);
}

/// A guest may start from the host's own root. Its `/proc` is out of reach, and the guest mounts one of its own there.
#[test]
fn a_mount_point_over_a_pseudo_file_system_of_the_host_is_an_empty_folder() {
    let host = Passthrough::new(Path::new("/"), PassthroughConfig::default()).unwrap();
    let mut driver = mounted(Overlay::new(host, entries()).unwrap());
    let proc = driver.lookup(ROOT, b"proc").unwrap().node();
    assert_eq!(driver.lookup(proc, b"self").unwrap_err(), ENOENT);
    let listed = driver.list(ROOT, 16384).unwrap();
    assert_eq!(listed.iter().filter(|name| *name == "proc").count(), 1);
}

/// Listings come in parts of any size, and each name comes once.
#[test]
fn a_listing_in_small_parts_has_each_name_once() {
    let (mut driver, _) = overlay();
    for number in 0..20 {
        driver
            .mkdir(ROOT, format!("folder-{number:02}").as_bytes(), 0o755)
            .unwrap();
    }
    let whole = driver.list(ROOT, 4096).unwrap();
    assert_eq!(whole.len(), 24);
    for size in [40, 48, 64, 100, 200, 500] {
        assert_eq!(driver.list(ROOT, size).unwrap(), whole, "replies of {size} bytes");
    }
}

/// A folder as ext4 lists it: what continues after its last entry is the largest number that there is.
struct EndsAtTheLargestOffset;

impl FileSystem for EndsAtTheLargestOffset {
    fn lookup(&mut self, _: NodeId, _: Name<'_>) -> Result<Entry, Errno> {
        Err(Errno::ENOENT)
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

    fn readdir(&mut self, _: NodeId, _: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<(), Errno> {
        let end = i64::MAX.cast_unsigned();
        for (number, (name, next)) in [(b"first" as &[u8], 77), (b"last", end)].into_iter().enumerate() {
            let listed = [0, 77, end].iter().position(|known| *known == offset);
            let entry = DirEntry {
                ino: 5,
                offset: next,
                kind: None,
                name,
            };
            if listed <= Some(number) && !sink.push(&entry, None) {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn mount_points_are_listed_after_a_folder_that_ends_at_the_largest_offset() {
    let mut driver = mounted(Overlay::new(EndsAtTheLargestOffset, entries()).unwrap());
    for size in [40, 64, 80, 4096] {
        let listed = driver.list(ROOT, size).unwrap();
        assert_eq!(listed, ["first", "last", "proc", "mnt"], "replies of {size} bytes");
    }
}

/// A host with a FUSE mount at `/mnt` whose server has died.
struct HasADeadMount(MemoryFs);

impl FileSystem for HasADeadMount {
    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry, Errno> {
        match name.to_bytes() {
            b"mnt" => Err(Errno::from_raw(libc::ENOTCONN)),
            _ => self.0.lookup(parent, name),
        }
    }

    fn getattr(&mut self, node: NodeId, handle: Option<Handle>) -> Result<Attr, Errno> {
        self.0.getattr(node, handle)
    }

    fn opendir(&mut self, node: NodeId, flags: u32) -> Result<Opened, Errno> {
        self.0.opendir(node, flags)
    }

    fn readdir(&mut self, node: NodeId, handle: Handle, offset: u64, sink: &mut dyn DirSink) -> Result<(), Errno> {
        let mount = DirEntry {
            ino: 5,
            offset: 1 << 40,
            kind: None,
            name: b"mnt",
        };
        if offset < mount.offset {
            self.0.readdir(node, handle, offset, sink)?;
            sink.push(&mount, None);
        }
        Ok(())
    }
}

#[test]
fn a_dead_mount_of_the_host_where_a_mount_point_is_does_not_fail_the_listing() {
    let host = HasADeadMount(MemoryFs::new(1 << 20));
    let mut driver = mounted(Overlay::new(host, entries()).unwrap());
    assert_eq!(sorted_names(&mut driver, ROOT), [".", "..", "mnt", "proc"]);
    assert_eq!(driver.lookup(ROOT, b"mnt").unwrap_err(), libc::ENOTCONN);
}

#[test]
fn paths_that_no_file_can_have_are_refused() {
    for path in ["", "/", "relative", "/a/../b", "/a/./b", "/nul\0"] {
        let made = Overlay::new(MemoryFs::new(1 << 20), vec![VirtualEntry::folder(path)]);
        assert_eq!(made.err(), Some(OverlayError::Path { path: path.into() }));
    }
    let file = VirtualEntry::file("/a", 0o644, b"".as_slice());
    let empty = VirtualEntry::empty_file("/a");
    for first in [&file, &empty] {
        let others = [
            VirtualEntry::folder("/a/b"),
            VirtualEntry::folder("/a"),
            file.clone(),
            empty.clone(),
        ];
        for meets in others {
            assert!(Overlay::new(MemoryFs::new(1 << 20), vec![first.clone(), meets]).is_err());
        }
    }
}

#[test]
fn attributes_and_space_are_answered_for_virtual_files_too() {
    let (mut driver, _) = overlay();
    let node = driver.lookup(ROOT, b"proc").unwrap().node();
    assert_eq!(driver.getxattr(node, b"security.capability", 100).unwrap_err(), 61);
    let statfs = driver.call(op::STATFS, node, &[]).unwrap();
    assert_eq!(u32_at(&statfs, 40), 4096);
}
