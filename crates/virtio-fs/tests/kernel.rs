//! The device with the kernel of this machine for its driver.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::kernel::Mounted;
use common::{ROOT, share, snapshot};
use virtio_fs::overlay::{Overlay, VirtualEntry};
use virtio_fs::passthrough::{CachePolicy, Passthrough, PassthroughConfig};
use virtio_fs::{FileSystem, MemoryFs, SingleFile};
use vm_memory::VolatileMemory;

/// A shared folder and a place to mount it.
struct Scene {
    _temp: tempfile::TempDir,
    shared: PathBuf,
    mnt: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (shared, mnt) = (temp.path().join("shared"), temp.path().join("mnt"));
        fs::create_dir(&shared).unwrap();
        fs::create_dir(&mnt).unwrap();
        Self {
            _temp: temp,
            shared,
            mnt,
        }
    }

    fn mount(&self, config: PassthroughConfig) -> Option<Mounted> {
        Mounted::new(&self.mnt, Passthrough::new(&self.shared, config).unwrap())
    }
}

fn modes() -> [PassthroughConfig; 4] {
    let of = |cache| PassthroughConfig {
        cache,
        ..PassthroughConfig::default()
    };
    let collecting = PassthroughConfig {
        writeback: true,
        ..of(CachePolicy::Always)
    };
    [
        of(CachePolicy::None),
        of(CachePolicy::Auto),
        of(CachePolicy::Always),
        collecting,
    ]
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_written_through_the_mount_are_on_the_host_in_every_mode() {
    for config in modes() {
        let scene = Scene::new();
        let Some(mounted) = scene.mount(config.clone()) else {
            return;
        };
        let data: Vec<u8> = (0..3_000_001u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        fs::write(scene.mnt.join("file"), &data).unwrap();
        fs::create_dir_all(scene.mnt.join("a/b/c")).unwrap();
        fs::rename(scene.mnt.join("file"), scene.mnt.join("a/b/c/moved")).unwrap();
        fs::hard_link(scene.mnt.join("a/b/c/moved"), scene.mnt.join("link")).unwrap();
        assert!(fs::read(scene.mnt.join("link")).unwrap() == data);
        assert_eq!(fs::metadata(scene.mnt.join("link")).unwrap().nlink(), 2);
        let driver = mounted.unmount();
        assert!(
            fs::read(scene.shared.join("a/b/c/moved")).unwrap() == data,
            "{config:?}"
        );
        assert_eq!(driver.handler.server().stats().malformed, 0);
    }
}

#[test]
fn a_folder_of_ten_thousand_files_is_listed_whole() {
    let scene = Scene::new();
    for number in 0..10_000 {
        fs::write(scene.shared.join(format!("file-{number}")), b"").unwrap();
    }
    let Some(mounted) = scene.mount(PassthroughConfig::default()) else {
        return;
    };
    assert_eq!(names(&scene.mnt), names(&scene.shared));
    let total: u64 = fs::read_dir(&scene.mnt)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().nlink())
        .sum();
    assert_eq!(total, 10_000);
    drop(mounted);
}

/// The kernel of the host goes on where it was; from the start on it has to be told to go back.
#[test]
fn an_open_folder_listed_from_the_start_again_shows_what_is_there_then() {
    let scene = Scene::new();
    let Some(mounted) = scene.mount(PassthroughConfig::default()) else {
        return;
    };
    let mut folder = rustix::fs::Dir::read_from(fs::File::open(&scene.mnt).unwrap()).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(scene.shared.join(name), b"").unwrap();
        folder.rewind();
        let found = folder
            .by_ref()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str() == Ok(name));
        assert_eq!(found.count(), 1, "{name}");
    }
    drop(folder);
    drop(mounted);
}

#[test]
fn a_virtual_init_runs_and_leaves_no_trace() {
    let scene = Scene::new();
    fs::create_dir_all(scene.shared.join("mnt/there")).unwrap();
    fs::create_dir(scene.shared.join(".tessera")).unwrap();
    fs::write(scene.shared.join(".tessera/of-the-host"), b"hidden").unwrap();
    let before = snapshot(&scene.shared);
    let entries = vec![
        VirtualEntry::file("/.tessera/init", 0o755, b"#!/bin/sh\necho from the init\n".as_slice()),
        VirtualEntry::file("/.tessera/config.json", 0o644, b"{}".to_vec()),
        VirtualEntry::folder("/dev"),
        VirtualEntry::folder("/mnt/x/y"),
        VirtualEntry::folder("/mnt/there"),
    ];
    let config = PassthroughConfig {
        read_only: true,
        ..PassthroughConfig::default()
    };
    let overlay = Overlay::new(Passthrough::new(&scene.shared, config).unwrap(), entries).unwrap();
    let Some(mounted) = Mounted::new(&scene.mnt, overlay) else {
        return;
    };

    let output = Command::new(scene.mnt.join(".tessera/init")).output().unwrap();
    assert_eq!(output.stdout, b"from the init\n");
    assert_eq!(fs::read(scene.mnt.join(".tessera/config.json")).unwrap(), b"{}");
    assert!(!scene.mnt.join(".tessera/of-the-host").exists());
    assert_eq!(names(&scene.mnt), ["dev", "mnt"]);
    assert_eq!(names(&scene.mnt.join("mnt")), ["there", "x"]);
    assert_eq!(names(&scene.mnt.join("mnt/x")), ["y"]);
    let mode = fs::metadata(scene.mnt.join("mnt/x/y")).unwrap().mode();
    assert_eq!(mode, 0o040_755);
    for path in ["new", "dev/new", "mnt/x/new", ".tessera/init"] {
        let error = fs::write(scene.mnt.join(path), b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{path}");
    }
    let target = scene.mnt.join("dev");
    rustix::mount::mount(c"none", &target, c"tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    fs::write(target.join("null"), b"").unwrap();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
    drop(mounted);
    assert_eq!(snapshot(&scene.shared), before);
}

#[test]
fn a_single_file_is_shared_and_nothing_beside_it() {
    let scene = Scene::new();
    fs::write(scene.shared.join("one"), b"before").unwrap();
    fs::write(scene.shared.join("other"), b"secret").unwrap();
    let file = Passthrough::new(&scene.shared.join("one"), PassthroughConfig::default()).unwrap();
    let Some(mounted) = Mounted::new(&scene.mnt, SingleFile::new(file, "shown").unwrap()) else {
        return;
    };
    assert_eq!(names(&scene.mnt), ["shown"]);
    assert_eq!(fs::read(scene.mnt.join("shown")).unwrap(), b"before");
    fs::write(scene.mnt.join("shown"), b"after").unwrap();
    assert_eq!(fs::read(scene.shared.join("one")).unwrap(), b"after");
    for name in ["one", "other", "new"] {
        assert!(fs::write(scene.mnt.join(name), b"x").is_err(), "{name}");
    }
    drop(mounted);
    assert_eq!(names(&scene.shared), ["one", "other"]);
}

fn errno<T>(done: std::io::Result<T>) -> Option<i32> {
    done.err().and_then(|error| error.raw_os_error())
}

/// What a shared file can and cannot do, where the guest's init has bound it.
#[test]
fn a_single_file_that_is_bound_keeps_its_name_and_may_change_otherwise() {
    let scene = Scene::new();
    let (of_host, bound) = (scene.shared.join("one"), scene.mnt.with_file_name("bound"));
    fs::write(&of_host, b"before").unwrap();
    fs::write(&bound, b"").unwrap();
    let file = Passthrough::new(&of_host, PassthroughConfig::default()).unwrap();
    let Some(mounted) = Mounted::new(&scene.mnt, SingleFile::new(file, "file").unwrap()) else {
        return;
    };
    rustix::mount::mount_bind(scene.mnt.join("file"), &bound).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&bound)
        .unwrap()
        .write_all(b" after")
        .unwrap();
    assert_eq!(fs::read(&of_host).unwrap(), b"before after");
    fs::OpenOptions::new()
        .write(true)
        .open(&bound)
        .unwrap()
        .set_len(3)
        .unwrap();
    assert_eq!(fs::read(&of_host).unwrap(), b"bef");
    fs::set_permissions(&bound, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(&of_host).unwrap().mode() & 0o7777, 0o640);
    let other = bound.with_file_name("other");
    fs::write(&other, b"").unwrap();
    assert_eq!(errno(fs::remove_file(&bound)), Some(libc::EBUSY));
    assert_eq!(
        errno(fs::rename(&bound, bound.with_file_name("moved"))),
        Some(libc::EBUSY)
    );
    assert_eq!(errno(fs::rename(&other, &bound)), Some(libc::EBUSY));
    assert_eq!(
        errno(fs::hard_link(&bound, bound.with_file_name("link"))),
        Some(libc::EXDEV)
    );
    rustix::mount::unmount(&bound, rustix::mount::UnmountFlags::DETACH).unwrap();
    drop(mounted);
    assert_eq!(names(&scene.shared), ["one"]);
}

/// Editors write a new file and rename it over the old one.
#[test]
fn a_single_file_that_the_host_replaces_stays_the_old_one() {
    for config in modes() {
        let scene = Scene::new();
        let of_host = scene.shared.join("one");
        fs::write(&of_host, b"old").unwrap();
        let file = Passthrough::new(&of_host, config).unwrap();
        let Some(mounted) = Mounted::new(&scene.mnt, SingleFile::new(file, "file").unwrap()) else {
            return;
        };
        fs::write(scene.shared.join("new"), b"new").unwrap();
        fs::rename(scene.shared.join("new"), &of_host).unwrap();
        assert_eq!(fs::read(scene.mnt.join("file")).unwrap(), b"old");
        fs::write(scene.mnt.join("file"), b"of the guest").unwrap();
        assert_eq!(fs::read(scene.mnt.join("file")).unwrap(), b"of the guest");
        drop(mounted);
        assert_eq!(fs::read(&of_host).unwrap(), b"new");
    }
}

#[test]
fn a_single_file_that_is_read_only_changes_in_nothing() {
    let scene = Scene::new();
    let of_host = scene.shared.join("one");
    fs::write(&of_host, b"kept").unwrap();
    let before = snapshot(&scene.shared);
    let config = PassthroughConfig {
        read_only: true,
        ..PassthroughConfig::default()
    };
    let file = Passthrough::new(&of_host, config).unwrap();
    let Some(mounted) = Mounted::new(&scene.mnt, SingleFile::new(file, "file").unwrap()) else {
        return;
    };
    let shown = scene.mnt.join("file");
    assert_eq!(fs::read(&shown).unwrap(), b"kept");
    assert_eq!(errno(fs::write(&shown, b"gone")), Some(libc::EROFS));
    assert_eq!(
        errno(fs::OpenOptions::new().append(true).open(&shown)),
        Some(libc::EROFS)
    );
    let mode = fs::Permissions::from_mode(0o777);
    assert_eq!(errno(fs::set_permissions(&shown, mode)), Some(libc::EROFS));
    drop(mounted);
    assert_eq!(snapshot(&scene.shared), before);
}

#[test]
fn a_tree_in_memory_is_a_file_system() {
    let scene = Scene::new();
    let Some(mounted) = Mounted::new(&scene.mnt, MemoryFs::new(64 << 20)) else {
        return;
    };
    exercise(&scene.mnt);
    drop(mounted);
}

fn exercise(folder: &Path) {
    fs::create_dir(folder.join("a")).unwrap();
    fs::write(folder.join("a/file"), b"0123456789").unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(folder.join("a/file"))
        .unwrap()
        .write_all(b"abc")
        .unwrap();
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    assert_eq!(fs::read(folder.join("b/file")).unwrap(), b"0123456789abc");
    std::os::unix::fs::symlink("b/file", folder.join("link")).unwrap();
    assert_eq!(fs::read(folder.join("link")).unwrap(), b"0123456789abc");
    assert_eq!(
        fs::remove_dir(folder.join("b")).unwrap_err().raw_os_error(),
        Some(libc::ENOTEMPTY)
    );
    fs::remove_dir_all(folder.join("b")).unwrap();
    assert_eq!(names(folder), ["link"]);
}

/// A file is readable after its last name is gone, for as long as it is open; whatever the descriptor cache holds.
#[test]
fn an_open_file_outlives_its_name() {
    for handles in [true, false] {
        let scene = Scene::new();
        let config = PassthroughConfig {
            cached_descriptors: 1,
            ..PassthroughConfig::default()
        };
        let back_end = Passthrough::new(&scene.shared, config).unwrap();
        let back_end = if handles {
            back_end
        } else {
            back_end.without_file_handles()
        };
        let Some(mounted) = Mounted::new(&scene.mnt, back_end) else {
            return;
        };
        let path = scene.mnt.join("file");
        fs::write(&path, b"kept").unwrap();
        let open = fs::File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        for number in 0..20 {
            fs::write(scene.mnt.join(format!("other-{number}")), b"").unwrap();
        }
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        assert_eq!(std::io::read_to_string(&open).unwrap(), "kept");
        drop(open);
        drop(mounted);
    }
}

/// Each cache policy as its documentation says, with a process of the host that edits under the guest.
#[test]
fn a_change_by_the_host_is_seen_as_the_policy_promises() {
    for cache in [CachePolicy::None, CachePolicy::Auto, CachePolicy::Always] {
        let scene = Scene::new();
        fs::write(scene.shared.join("file"), b"old").unwrap();
        let Some(mounted) = scene.mount(PassthroughConfig {
            cache,
            ..PassthroughConfig::default()
        }) else {
            return;
        };
        let path = scene.mnt.join("file");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let open = fs::File::open(&path).unwrap();
        fs::write(scene.shared.join("file"), b"new").unwrap();
        // The same size and, as the host's clock for files moves in steps, perhaps the same times.
        let reopened = fs::read(&path).unwrap();
        match cache {
            CachePolicy::None => {
                assert_eq!(reopened, b"new");
                assert_eq!(std::io::read_to_string(&open).unwrap(), "new");
            }
            CachePolicy::Auto => assert_eq!(reopened, b"new", "who opens after a close sees what was written"),
            CachePolicy::Always => assert_eq!(reopened, b"old", "nobody else writes, was the promise"),
        }
        drop(open);
        drop(mounted);
    }
}

fn map_shared(file: &fs::File, len: usize) -> vm_memory::MmapRegion {
    let offset = vm_memory::FileOffset::new(file.try_clone().unwrap(), 0);
    vm_memory::MmapRegion::from_file(offset, len).unwrap()
}

fn read_mapping(mapping: &vm_memory::MmapRegion) -> Vec<u8> {
    let mut bytes = vec![0; mapping.len()];
    mapping.get_slice(0, mapping.len()).unwrap().copy_to(&mut bytes[..]);
    bytes
}

/// What is mapped is in the guest's memory, whatever the policy.
#[test]
fn mapping_shows_a_change_by_the_host_when_the_guest_has_seen_its_times() {
    for cache in [CachePolicy::None, CachePolicy::Auto] {
        let scene = Scene::new();
        let (path, of_host) = (scene.mnt.join("file"), scene.shared.join("file"));
        fs::write(&of_host, b"old").unwrap();
        let Some(mounted) = scene.mount(PassthroughConfig {
            cache,
            ..PassthroughConfig::default()
        }) else {
            return;
        };
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mapping = map_shared(&file, 3);
        assert_eq!(read_mapping(&mapping), b"old");
        let host = fs::OpenOptions::new().write(true).open(&of_host).unwrap();
        host.write_all_at(b"new", 0).unwrap();
        host.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(read_mapping(&mapping), b"old", "{cache:?}");
        if cache == CachePolicy::None {
            fs::metadata(&path).unwrap();
            assert_eq!(read_mapping(&mapping), b"new");
        }
        host.write_all_at(b"end", 0).unwrap();
        let again = map_shared(&fs::OpenOptions::new().read(true).write(true).open(&path).unwrap(), 3);
        assert_eq!(read_mapping(&again), b"end", "{cache:?}");
        drop((mapping, again, file));
        drop(mounted);
    }
}

/// The guest's kernel reads no further than the size that it knows, which may be a second old.
#[test]
fn a_file_that_the_host_has_changed_in_size_is_read_whole_by_who_opens_it_then() {
    for cache in [CachePolicy::None, CachePolicy::Auto] {
        let scene = Scene::new();
        let of_host = scene.shared.join("file");
        fs::write(&of_host, b"old").unwrap();
        let Some(mounted) = scene.mount(PassthroughConfig {
            cache,
            ..PassthroughConfig::default()
        }) else {
            return;
        };
        let path = scene.mnt.join("file");
        for text in [
            "longer than before",
            "short",
            "",
            "and long again, with the next page: ",
        ] {
            let text = text.repeat(1000);
            assert_eq!(
                fs::metadata(&path).unwrap().len(),
                fs::metadata(&of_host).unwrap().len()
            );
            fs::write(&of_host, &text).unwrap();
            assert!(fs::read_to_string(&path).unwrap() == text, "{cache:?}");
            fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(b"of the guest")
                .unwrap();
            assert!(
                fs::read_to_string(&of_host).unwrap() == format!("{text}of the guest"),
                "{cache:?}"
            );
            assert!(
                fs::read_to_string(&path).unwrap() == format!("{text}of the guest"),
                "{cache:?}"
            );
        }
        drop(mounted);
    }
}

/// Whoever opens a file for writing alone writes around the guest's cache.
#[test]
fn what_a_writer_has_written_is_read_at_once_whoever_opened_first() {
    for config in modes() {
        let scene = Scene::new();
        let Some(mounted) = scene.mount(config.clone()) else {
            return;
        };
        let path = scene.mnt.join("file");
        let mut writer = fs::File::create(&path).unwrap();
        let mut expected = String::new();
        let mut readers = Vec::new();
        for round in 0..6 {
            // Readers come while the file is written, and a second writer while it is read.
            readers.push(fs::File::open(&path).unwrap());
            if round == 3 {
                drop(writer);
                writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
            }
            let text = format!("round {round}, not a whole page; ").repeat(100);
            writer.write_all(text.as_bytes()).unwrap();
            expected += &text;
            for reader in &readers {
                let mut read = vec![0; expected.len() + 1];
                let len = reader.read_at(&mut read, 0).unwrap();
                assert!(read[..len] == *expected.as_bytes(), "{config:?} round {round}");
            }
        }
        drop((writer, readers));
        assert!(fs::read_to_string(&path).unwrap() == expected, "{config:?}");
        drop(mounted);
        assert!(
            fs::read_to_string(scene.shared.join("file")).unwrap() == expected,
            "{config:?}"
        );
    }
}

/// Opens with these flags as a user without privileges.
fn open_as(uid: u32, path: &Path, flags: i32) -> std::io::Result<fs::File> {
    let path = path.to_path_buf();
    // Only this thread changes its user, as the raw system calls do.
    let user = std::thread::spawn(move || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(rustix::fs::Gid::from_raw(uid)).unwrap();
        rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(uid)).unwrap();
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
    });
    user.join().unwrap()
}

/// Linux checks nothing before it makes a file, and a name that was free may be somebody's by then.
#[test]
fn file_that_the_host_makes_unseen_is_opened_by_those_who_may() {
    const OWNER: u32 = 1000;
    for config in modes() {
        let scene = Scene::new();
        fs::set_permissions(&scene.shared, fs::Permissions::from_mode(0o777)).unwrap();
        let Some(mounted) = scene.mount(config.clone()) else {
            return;
        };
        for (name, uid, flags, expected) in [
            ("own", OWNER, libc::O_CREAT, None),
            ("of-another", 1001, libc::O_CREAT, Some(libc::EACCES)),
            ("to-cut", 1001, libc::O_CREAT | libc::O_TRUNC, Some(libc::EACCES)),
            ("only-new", OWNER, libc::O_CREAT | libc::O_EXCL, Some(libc::EEXIST)),
        ] {
            let (path, of_host) = (scene.mnt.join(name), scene.shared.join(name));
            assert!(!path.exists());
            fs::write(&of_host, b"secret").unwrap();
            fs::set_permissions(&of_host, fs::Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&of_host, Some(OWNER), Some(OWNER)).unwrap();
            assert_eq!(errno(open_as(uid, &path, flags)), expected, "{name} {config:?}");
            assert_eq!(fs::read(&of_host).unwrap(), b"secret", "{name} {config:?}");
        }
        drop(mounted);
    }
}

fn append_to(path: &Path) -> fs::File {
    fs::OpenOptions::new().read(true).append(true).open(path).unwrap()
}

/// The kernel writes the pages of a mapping through any file that is open for writing.
#[test]
fn mapping_of_a_file_that_is_open_to_append_is_written_where_it_is() {
    for config in modes() {
        let scene = Scene::new();
        fs::write(scene.shared.join("file"), b"first").unwrap();
        let Some(mounted) = scene.mount(config.clone()) else {
            return;
        };
        let file = append_to(&scene.mnt.join("file"));
        let mapping = map_shared(&file, 5);
        mapping.get_slice(0, 5).unwrap().copy_from(b"FIRST");
        file.sync_all().unwrap();
        assert_eq!(fs::read(scene.shared.join("file")).unwrap(), b"FIRST", "{config:?}");
        (&file).write_all(b" second").unwrap();
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty()).unwrap();
        file.write_all_at(b"f", 0).unwrap();
        file.sync_all().unwrap();
        assert_eq!(
            fs::read(scene.shared.join("file")).unwrap(),
            b"fIRST second",
            "{config:?}"
        );
        drop((mapping, file));
        drop(mounted);
    }
}

/// The kernel does not write back what it holds before it asks where data is, and the host still has a hole there.
#[test]
fn data_that_only_the_guest_has_is_not_taken_for_a_hole() {
    const LEN: usize = 1 << 20;
    for config in modes() {
        let scene = Scene::new();
        let Some(mounted) = scene.mount(config.clone()) else {
            return;
        };
        let mut written = fs::File::create(scene.mnt.join("written")).unwrap();
        written.write_all(&[1; LEN]).unwrap();
        let options = fs::OpenOptions::new().read(true).write(true).create_new(true).clone();
        let mapped = options.open(scene.mnt.join("mapped")).unwrap();
        mapped.set_len(LEN as u64).unwrap();
        let mapping = map_shared(&mapped, LEN);
        mapping.get_slice(0, 5).unwrap().copy_from(b"pages");
        for (name, file) in [("written", &written), ("mapped", &mapped)] {
            let found = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0));
            assert_eq!(found, Ok(0), "{name} {config:?}");
            let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0));
            assert_eq!(end, Ok(LEN as u64), "{name} {config:?}");
        }
        drop((written, mapped, mapping));
        drop(mounted);
    }
}

/// The kernel serves pipes itself, and asks for nothing when a folder becomes somebody's working folder.
#[test]
fn pipe_and_folder_in_use_are_there_without_their_names() {
    for config in modes() {
        let scene = Scene::new();
        let Some(mounted) = scene.mount(config.clone()) else {
            return;
        };
        let (path, working) = (scene.mnt.join("pipe"), scene.mnt.join("working"));
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let mut pipe = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::create_dir(&working).unwrap();
        let folder = rustix::fs::open(&working, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::remove_dir(&working).unwrap();
        for number in 0..100 {
            fs::create_dir_all(scene.mnt.join(format!("{number}/inside"))).unwrap();
        }
        pipe.write_all(b"through it").unwrap();
        assert_eq!(pipe.metadata().unwrap().nlink(), 0, "{config:?}");
        assert_eq!(rustix::fs::fstat(&folder).unwrap().st_nlink, 0, "{config:?}");
        drop((pipe, folder));
        drop(mounted);
    }
}

/// Linux writes the times of an inode back after each change of its names, with no handle, and takes what fails for an error of
/// the whole mount, of which the next `syncfs` tells.
#[test]
fn sync_has_no_error_after_files_have_lost_their_names() {
    let [.., collecting] = modes();
    for (handles, cached_descriptors) in [(true, 64), (false, 64), (true, 1), (false, 1)] {
        let scene = Scene::new();
        let config = PassthroughConfig {
            cached_descriptors,
            ..collecting.clone()
        };
        let mut share = Passthrough::new(&scene.shared, config).unwrap();
        if !handles {
            share = share.without_file_handles();
        }
        let Some(mounted) = Mounted::new(&scene.mnt, share) else {
            return;
        };
        let root = fs::File::open(&scene.mnt).unwrap();
        let path = |name: &str| scene.mnt.join(name);
        let make = |name| {
            fs::write(path(name), name).unwrap();
            // Others take its place among the cached descriptors.
            fs::create_dir_all(path("folder").join(name).join("inside")).unwrap();
            path(name)
        };
        let (removed, replaced, replacing) = (make("removed"), make("replaced"), make("replacing"));
        let (linked, unlinked, used) = (make("linked"), make("unlinked"), make("used"));
        let path_only = rustix::fs::open(&used, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let steps: [(&str, &dyn Fn()); 8] = [
            ("unlink", &|| fs::remove_file(&removed).unwrap()),
            ("rename over", &|| fs::rename(&replacing, &replaced).unwrap()),
            ("rename", &|| fs::rename(&replaced, path("renamed")).unwrap()),
            ("link", &|| fs::hard_link(&linked, path("other")).unwrap()),
            ("unlink one of two", &|| {
                fs::create_dir_all(path("folder/of/others")).unwrap();
                fs::remove_file(path("other")).unwrap();
            }),
            ("setxattr", &|| {
                rustix::fs::setxattr(&unlinked, "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
            }),
            ("unlink what is open", &|| {
                let open = fs::File::open(&unlinked).unwrap();
                fs::remove_file(&unlinked).unwrap();
                assert_eq!(open.metadata().unwrap().nlink(), 0);
            }),
            ("unlink what is in use", &|| fs::remove_file(&used).unwrap()),
        ];
        let failed = steps.iter().filter(|(_, take)| {
            take();
            rustix::fs::syncfs(&root).is_err()
        });
        let failed: Vec<_> = failed.map(|(step, _)| step).collect();
        assert!(failed.is_empty(), "{failed:?}, {handles}, {cached_descriptors}");
        assert_eq!(rustix::fs::fstat(&path_only).unwrap().st_nlink, 0);
        drop((path_only, root));
        drop(mounted);
    }
}

#[test]
fn guests_that_append_to_one_file_do_not_overwrite_each_other() {
    for cache in [CachePolicy::None, CachePolicy::Auto, CachePolicy::Always] {
        let scene = Scene::new();
        let other = scene.mnt.with_file_name("other");
        fs::create_dir(&other).unwrap();
        fs::write(scene.shared.join("log"), b"").unwrap();
        let config = PassthroughConfig {
            cache,
            ..PassthroughConfig::default()
        };
        let Some(one) = scene.mount(config.clone()) else { return };
        let Some(two) = Mounted::new(&other, Passthrough::new(&scene.shared, config).unwrap()) else {
            return;
        };
        let mut logs = [&scene.mnt, &other].map(|mount| append_to(&mount.join("log")));
        for line in ["a\n", "bb\n", "ccc\n"] {
            for log in &mut logs {
                log.write_all(line.as_bytes()).unwrap();
            }
        }
        let text = fs::read_to_string(scene.shared.join("log")).unwrap();
        assert_eq!(text, "a\na\nbb\nbb\nccc\nccc\n", "{cache:?}");
        drop(logs);
        drop((one, two));
    }
}

/// The host of the second share has its files from the first. To that it passes O_APPEND on, and what it takes for the end of a
/// file otherwise.
#[test]
fn append_through_two_shares_goes_to_the_end_that_the_file_has() {
    for cache in [CachePolicy::None, CachePolicy::Auto, CachePolicy::Always] {
        let scene = Scene::new();
        let log = scene.shared.join("log");
        fs::write(&log, b"").unwrap();
        let config = PassthroughConfig {
            cache,
            ..PassthroughConfig::default()
        };
        let Some(outer) = scene.mount(config.clone()) else {
            return;
        };
        let mut driver = share(&scene.mnt, config);
        let node = driver.lookup(ROOT, b"log").unwrap().node();
        let flags = libc::O_WRONLY | libc::O_APPEND;
        let file = (node, driver.open(node, flags).unwrap().0);
        let of_host = append_to(&log);
        for line in [b"one\n", b"two\n"] {
            assert_eq!(driver.write_as(file, 0, line, 0, flags), Ok(4));
            (&of_host).write_all(b"host\n").unwrap();
        }
        assert_eq!(driver.write_as(file, 0, b"end\n", 0, flags), Ok(4));
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text, "one\nhost\ntwo\nhost\nend\n", "{cache:?}");
        drop(driver);
        drop(outer);
    }
}

#[test]
fn two_guests_of_one_folder_see_each_others_files() {
    let scene = Scene::new();
    let other = scene.mnt.with_file_name("other");
    fs::create_dir(&other).unwrap();
    let config = PassthroughConfig {
        cache: CachePolicy::None,
        ..PassthroughConfig::default()
    };
    let Some(one) = scene.mount(config.clone()) else { return };
    let Some(two) = Mounted::new(&other, Passthrough::new(&scene.shared, config).unwrap()) else {
        return;
    };
    fs::write(scene.mnt.join("file"), b"from one").unwrap();
    assert_eq!(fs::read(other.join("file")).unwrap(), b"from one");
    fs::rename(other.join("file"), other.join("renamed")).unwrap();
    assert_eq!(fs::read(scene.mnt.join("renamed")).unwrap(), b"from one");
    assert!(!scene.mnt.join("file").exists());
    drop((one, two));
}

#[test]
fn a_share_deleted_on_the_host_gives_errors_and_goes_on() {
    let scene = Scene::new();
    fs::create_dir_all(scene.shared.join("a/b")).unwrap();
    fs::write(scene.shared.join("a/b/file"), b"x").unwrap();
    let Some(mounted) = scene.mount(PassthroughConfig::default()) else {
        return;
    };
    let open = fs::File::open(scene.mnt.join("a/b/file")).unwrap();
    fs::remove_dir_all(&scene.shared).unwrap();
    assert!(fs::write(scene.mnt.join("new"), b"x").is_err());
    assert!(fs::read_dir(scene.mnt.join("a/b/c")).is_err());
    assert_eq!(std::io::read_to_string(&open).unwrap(), "x");
    drop(open);
    let driver = mounted.unmount();
    assert_eq!(driver.handler.server().stats().malformed, 0);
}

/// The whole of pjdfstest and fsx, where the programs are in PATH. `cargo install pjdfstest@0.2.2 fsx@0.3.2` gets them.
/// pjdfstest takes the users `nobody` and `tests`.
#[test]
fn posix_suites_pass_in_every_mode() {
    if !["pjdfstest", "fsx"].iter().all(|program| is_in_path(program)) || !has_user("tests") {
        eprintln!("skipped: takes pjdfstest 0.2.2, fsx 0.3.2 in PATH and a user `tests`");
        return;
    }
    for config in modes() {
        let scene = Scene::new();
        let Some(mounted) = scene.mount(config.clone()) else {
            return;
        };
        pjdfstest(&scene.mnt, &config);
        fsx(&scene.mnt, &config);
        drop(mounted);
    }
}

fn pjdfstest(folder: &Path, mode: &PassthroughConfig) {
    let group = if fs::read_to_string("/etc/group").unwrap().contains("\nnobody:") {
        "nobody"
    } else {
        "nogroup"
    };
    let settings = folder.with_file_name("pjdfstest.toml");
    let text = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutimensat = {{}}\nutime_now = {{}}\n\
         [settings]\nnaptime = 0.02\nallow_remount = false\n\
         [dummy_auth]\nentries = [[\"nobody\", \"{group}\"], [\"tests\", \"tests\"]]\n"
    );
    fs::write(&settings, text).unwrap();
    let output = Command::new("pjdfstest")
        .arg("-c")
        .arg(&settings)
        .arg("-p")
        .arg(folder)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains("Summary: 0 failed"), "{mode:?}\n{log}");
}

fn fsx(folder: &Path, mode: &PassthroughConfig) {
    let settings = folder.with_file_name("fsx.toml");
    let weights = "[weights]\nclose_open = 1\ninvalidate = 1\nmapread = 5\nmapwrite = 5\nread = 10\nwrite = 10\n\
                   truncate = 3\nfsync = 0.2\nfdatasync = 0.2\nposix_fallocate = 1\npunch_hole = 1\nsendfile = 2\n\
                   posix_fadvise = 1\ncopy_file_range = 2\n";
    fs::write(&settings, weights).unwrap();
    let mut command = Command::new("fsx");
    command
        .args(["-q", "-N", "2000", "-S", "7", "-f"])
        .arg(&settings)
        .arg("-P")
        .arg(folder.parent().unwrap());
    let output = command.arg(folder.join("fsx.bin")).output().unwrap();
    assert!(
        output.status.success(),
        "{mode:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn has_user(name: &str) -> bool {
    fs::read_to_string("/etc/passwd")
        .unwrap_or_default()
        .lines()
        .any(|line| line.starts_with(&format!("{name}:")))
}

/// The traits are object-safe and back-ends can be chosen at run time.
#[test]
fn a_boxed_back_end_is_a_back_end() {
    let boxed: Box<dyn FileSystem> = Box::new(MemoryFs::new(1 << 20));
    let mut driver = common::mounted(Overlay::new(boxed, vec![VirtualEntry::folder("/proc")]).unwrap());
    assert_eq!(driver.list(common::ROOT, 4096).unwrap(), [".", "..", "proc"]);
}
