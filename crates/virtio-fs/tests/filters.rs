//! Monitors that forbid themselves system calls. Alone in its program, as a filter is for a thread's whole life.
#![allow(unsafe_code, reason = "there is no safe way to set a filter")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::message::{Body, Caller, op, u64_at};
use common::{Driver, ROOT, is_root, mounted, share};
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};

/// Where a filter sees arguments of a system call: behind 16 bytes of other things and those before.
const FOURTH_ARGUMENT: u32 = 16 + 3 * 8;
const SIXTH_ARGUMENT: u32 = 16 + 5 * 8;

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = u16::try_from(code).unwrap();
    libc::sock_filter { code, jt, jf, k }
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Goes over the next `skipped` statements where what was loaded is something else.
fn is(value: u32, skipped: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skipped)
}

/// Makes a system call fail with `errno` for this thread from now on.
fn forbid(call: i64, errno: i32) {
    // The number of the system call is the first thing that a filter sees.
    filter(&[load(0), is(u32::try_from(call).unwrap(), 1)], errno);
}

/// The same for `pwritev2` with just these flags.
fn forbid_writes_with(flags: i32, errno: i32) {
    forbid_with(libc::SYS_pwritev2, SIXTH_ARGUMENT, flags, errno);
}

/// The same where an argument is this one.
fn forbid_with(call: i64, argument: u32, value: i32, errno: i32) {
    let call = u32::try_from(call).unwrap();
    filter(
        &[load(0), is(call, 3), load(argument), is(value.cast_unsigned(), 1)],
        errno,
    );
}

fn filter(conditions: &[libc::sock_filter], errno: i32) {
    let errno = u32::try_from(errno).unwrap() & libc::SECCOMP_RET_DATA;
    let mut program = conditions.to_vec();
    for answer in [libc::SECCOMP_RET_ERRNO | errno, libc::SECCOMP_RET_ALLOW] {
        program.push(statement(libc::BPF_RET | libc::BPF_K, answer, 0, 0));
    }
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    rustix::thread::set_no_new_privs(true).unwrap();
    // SAFETY: the kernel reads the program, which is there until after the call.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn use_share(folder: &Path, errno: i32, filter_first: bool) {
    let config = PassthroughConfig {
        cached_descriptors: 1,
        ..PassthroughConfig::default()
    };
    let new = || Passthrough::new(folder, config.clone()).unwrap().without_file_handles();
    let file_system = if filter_first {
        forbid(libc::SYS_openat2, errno);
        new()
    } else {
        let made = new();
        forbid(libc::SYS_openat2, errno);
        made
    };
    let mut driver = mounted(file_system);
    let sub = driver.mkdir(ROOT, b"sub", 0o755).unwrap().node();
    let (made, handle) = driver.create(sub, b"file", 0o644, 0o2).unwrap();
    driver.write(made.node(), handle, 0, b"data", 0).unwrap();
    driver.release(made.node(), handle);
    driver.mkdir(ROOT, b"other", 0o755).unwrap();
    driver.list(ROOT, 4096).unwrap();
    let (handle, _) = driver.open(made.node(), 0).unwrap();
    assert_eq!(driver.read(made.node(), handle, 0, 100).unwrap(), b"data");
}

/// Container runtimes answer EPERM for system calls that their list does not have, kernels before 5.6 ENOSYS.
#[test]
fn share_works_where_openat2_is_forbidden() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for filter_first in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_path_buf();
            let thread = std::thread::spawn(move || use_share(&path, errno, filter_first));
            assert!(thread.join().is_ok(), "errno {errno}, filter first: {filter_first}");
        }
    }
}

fn make_for_users(folder: &Path) {
    let mut driver = share(folder, PassthroughConfig::default());
    driver.by = Caller {
        uid: 1000,
        gid: 1000,
        pid: 1,
    };
    let (file, handle) = driver.create(ROOT, b"file", 0o6755, 0o2).unwrap();
    assert_eq!((file.attr().uid(), file.attr().mode()), (0, 0o100_755));
    assert_eq!(driver.write(file.node(), handle, 0, b"data", 0).unwrap(), 4);
    let folder = driver.mkdir(ROOT, b"folder", 0o1777).unwrap().attr();
    assert_eq!((folder.uid(), folder.mode()), (0, 0o041_777));
    let pipe = driver.mknod(ROOT, b"pipe", 0o010_666, 0).unwrap().attr();
    assert_eq!((pipe.uid(), pipe.mode()), (0, 0o010_666));
    let link = driver.symlink(ROOT, b"link", b"file").unwrap().attr();
    assert_eq!((link.uid(), link.mode()), (0, 0o120_777));
}

/// vfat has no owners and NFS its own idea of root (EPERM), a user namespace does not know all users (EINVAL).
#[test]
fn users_make_files_where_the_host_lets_nobody_give_them_away() {
    if !is_root() {
        eprintln!("skipped: takes root, which may give files away");
        return;
    }
    for errno in [libc::EPERM, libc::EINVAL, libc::EOVERFLOW, libc::EOPNOTSUPP] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let thread = std::thread::spawn(move || {
            forbid(libc::SYS_fchownat, errno);
            make_for_users(&path);
        });
        assert!(thread.join().is_ok(), "errno {errno}");
    }
    // Others are errors, and nothing stays.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    let thread = std::thread::spawn(move || {
        forbid(libc::SYS_fchownat, libc::EIO);
        let mut driver = share(&path, PassthroughConfig::default());
        driver.by.uid = 1000;
        assert_eq!(driver.create(ROOT, b"file", 0o644, 0o2).unwrap_err(), libc::EIO);
        assert_eq!(driver.list(ROOT, 4096).unwrap(), [".", ".."]);
    });
    assert!(thread.join().is_ok());
}

/// NFS that takes root for nobody, or vfat with `uid=`: here the thread makes files as another user than it began as.
#[test]
fn users_make_folders_where_all_belongs_to_somebody_else() {
    const NOBODY: u32 = 65534;
    if !is_root() {
        eprintln!("skipped: takes root, which may be another user for files");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().to_path_buf();
    let thread = std::thread::spawn(move || {
        let mut driver = share(&path, PassthroughConfig::default());
        // SAFETY: it changes nothing but who this thread is to file systems.
        unsafe { libc::setfsuid(NOBODY) };
        driver.by = Caller {
            uid: 1000,
            gid: 1000,
            pid: 1,
        };
        let made = driver.mkdir(ROOT, b"folder", 0o2755).unwrap();
        let pipe = driver.mknod(ROOT, b"pipe", 0o010_666, 0).unwrap();
        let link = driver.symlink(ROOT, b"link", b"folder").unwrap();
        for (made, mode) in [(&made, 0o040_700), (&pipe, 0o010_600), (&link, 0o120_777)] {
            assert_eq!((made.attr().uid(), made.attr().mode()), (NOBODY, mode));
        }
        let (file, _) = driver.create(made.node(), b"file", 0o6755, 0o2).unwrap();
        assert_eq!((file.attr().uid(), file.attr().mode()), (NOBODY, 0o100_755));
        assert_eq!(driver.lookup(ROOT, b"folder").unwrap().node(), made.node());
    });
    assert!(thread.join().is_ok());
}

/// Whether a file may be mapped to be written is known, and nobody asks the host for each that is open.
#[test]
fn holes_are_told_by_how_the_files_were_opened() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::File::create(folder.path().join("hole"))
        .and_then(|file| file.set_len(1 << 20))
        .unwrap();
    let path = folder.path().to_path_buf();
    let thread = std::thread::spawn(move || {
        forbid(libc::SYS_fcntl, libc::EPERM);
        let mut driver = share(&path, PassthroughConfig::default());
        let node = driver.lookup(ROOT, b"hole").unwrap().node();
        let reader = driver.open(node, libc::O_RDONLY).unwrap().0;
        let first_data = |driver: &mut Driver| {
            let seek = Body::new().u64(reader).u64(0).u32(3).u32(0);
            driver.call(op::LSEEK, node, &seek.0).map(|reply| u64_at(&reply, 0))
        };
        let writer = driver.open(node, libc::O_WRONLY).unwrap().0;
        assert_eq!(first_data(&mut driver), Err(libc::ENXIO));
        let mappable = [0; 2].map(|_| driver.open(node, libc::O_RDWR).unwrap().0);
        for handle in mappable {
            assert_eq!(first_data(&mut driver), Ok(0));
            driver.release(node, handle);
        }
        assert_eq!(first_data(&mut driver), Err(libc::ENXIO));
        driver.release(node, writer);
    });
    assert!(thread.join().is_ok());
}

/// A driver of a folder, and a file in it that is open with these flags: its node and its handle.
fn with_file(folder: &Path, flags: i32) -> (Driver, (u64, u64)) {
    let mut driver = share(folder, PassthroughConfig::default());
    let (entry, handle) = driver.create(ROOT, b"file", 0o644, libc::O_RDWR | flags).unwrap();
    (driver, (entry.node(), handle))
}

/// As of `pwritev2` with RWF_DSYNC and of mounts with `-o sync`, where Linux sends no FSYNC after it. The filter tells which
/// flags the host gets.
#[test]
fn write_that_is_to_be_on_the_disk_is_there_before_the_reply() {
    const TOLD: i32 = libc::EXDEV;
    for (file_flags, host_flags) in [
        (libc::O_DSYNC, libc::RWF_DSYNC),
        (libc::O_SYNC, libc::RWF_SYNC),
        (libc::O_DSYNC | libc::O_APPEND, libc::RWF_DSYNC | libc::RWF_APPEND),
        (libc::O_SYNC | libc::O_APPEND, libc::RWF_SYNC | libc::RWF_APPEND),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let thread = std::thread::spawn(move || {
            let (mut driver, file) = with_file(&path, 0);
            forbid_writes_with(host_flags, TOLD);
            assert_eq!(driver.write_as(file, 0, b"data", 0, file_flags), Err(TOLD));
            let others = file_flags & libc::O_APPEND;
            assert_eq!(driver.write_as(file, 0, b"data", 0, others), Ok(4));
        });
        assert!(thread.join().is_ok(), "{file_flags:o}");
    }
}

/// To `pwritev2`, unlike `pwritev`, it is the place where the descriptor is.
#[test]
fn write_to_the_disk_behind_all_offsets_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, file) = with_file(folder.path(), 0);
    for flags in [0, libc::O_DSYNC] {
        assert_eq!(driver.write_as(file, u64::MAX, b"data", 0, flags), Err(libc::EINVAL));
    }
}

/// As on a host before Linux 4.7. What the host's descriptor was opened to sync is not synced twice.
#[test]
fn write_that_is_to_be_on_the_disk_is_synced_where_pwritev2_is_not_known() {
    const TOLD: i32 = libc::EXDEV;
    for (opened_with, file_flags, sync, written) in [
        (0, libc::O_DSYNC, libc::SYS_fdatasync, Err(TOLD)),
        (0, libc::O_DSYNC, libc::SYS_fsync, Ok(4)),
        (0, libc::O_SYNC, libc::SYS_fsync, Err(TOLD)),
        (libc::O_DSYNC, libc::O_DSYNC, libc::SYS_fdatasync, Ok(4)),
        (libc::O_DSYNC, libc::O_SYNC, libc::SYS_fsync, Err(TOLD)),
        (libc::O_SYNC, libc::O_SYNC, libc::SYS_fsync, Ok(4)),
        (libc::O_SYNC, libc::O_DSYNC, libc::SYS_fdatasync, Ok(4)),
    ] {
        for unknown in [libc::EOPNOTSUPP, libc::ENOSYS] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_path_buf();
            let thread = std::thread::spawn(move || {
                let (mut driver, file) = with_file(&path, opened_with);
                forbid(libc::SYS_pwritev2, unknown);
                forbid(sync, TOLD);
                assert_eq!(driver.write_as(file, 0, b"data", 0, file_flags), written);
                assert_eq!(driver.write_as(file, 0, b"data", 0, 0), Ok(4));
            });
            assert!(thread.join().is_ok(), "{opened_with:o} {file_flags:o} {sync} {unknown}");
        }
    }
}

/// One EMFILE of many.
#[test]
fn append_after_one_that_got_no_second_descriptor_gets_one() {
    for (errno, later) in [
        (libc::EMFILE, 1),
        (libc::ENFILE, 1),
        (libc::EINTR, 1),
        (libc::EACCES, 0),
        (libc::EPERM, 0),
        (libc::EROFS, 0),
        (libc::ETXTBSY, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (mut driver, file) = with_file(folder.path(), 0);
        let path = folder.path().join("file");
        let thread = std::thread::spawn(move || {
            forbid(libc::SYS_openat, errno);
            assert_eq!(driver.write_as(file, 0, b"one\n", 0, libc::O_APPEND), Ok(4));
            driver
        });
        let mut driver = thread.join().unwrap();
        assert_eq!(appending_to(&path), 0, "{errno}");
        assert_eq!(driver.write_as(file, 0, b"two\n", 0, libc::O_APPEND), Ok(4));
        assert_eq!(appending_to(&path), later, "{errno}");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    }
}

/// Descriptors of this process with O_APPEND for a file.
fn appending_to(path: &Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let of_path = descriptors.filter_map(|entry| {
        let fd = entry.unwrap().path();
        let leads_there = std::fs::read_link(&fd).is_ok_and(|to| to == path);
        leads_there.then(|| Path::new("/proc/self/fdinfo").join(fd.file_name().unwrap()))
    });
    let appends = |info: &std::path::PathBuf| {
        let text = std::fs::read_to_string(info).unwrap();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_APPEND != 0
    };
    of_path.filter(appends).count()
}

/// Linux before 5.8 does not know the flag.
#[test]
fn times_are_set_where_utimensat_takes_no_empty_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    let thread = std::thread::spawn(move || {
        let (mut driver, file) = with_file(&path, 0);
        let link = driver.symlink(ROOT, b"link", b"file").unwrap().node();
        forbid_with(libc::SYS_utimensat, FOURTH_ARGUMENT, libc::AT_EMPTY_PATH, libc::EINVAL);
        for (node, time) in [(file.0, 1000), (link, 2000)] {
            assert_eq!(driver.set_mtime(node, time).unwrap().mtime(), time);
            assert_eq!(driver.getattr(node).unwrap().mtime(), time);
        }
    });
    assert!(thread.join().is_ok());
}
