//! Monitors that forbid themselves system calls. Alone in its program, as a filter is for a thread's whole life.
#![allow(unsafe_code, reason = "there is no safe way to set a filter")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::message::{Body, Caller, op, u64_at};
use common::{Driver, ROOT, is_root, mounted, share};
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};

/// Makes a system call fail with `errno` for this thread from now on.
fn forbid(call: i64, errno: i32) {
    let errno = u32::try_from(errno).unwrap() & libc::SECCOMP_RET_DATA;
    let statement = |code: u32, k: u32, jt, jf| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let number = u32::try_from(call).unwrap();
    let mut program = [
        // The number of the system call is the first thing that a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
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
