//! Mounts: those that every program expects, and those that the configuration names.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::config::{Mount, MountKind};
use crate::contract;
use crate::fault::Fault;
use crate::read_ahead;
use crate::sys::{
    self, FUSE_SUPER_MAGIC, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_RELATIME, MS_SHARED,
};

struct KernelFileSystem {
    name: &'static str,
    target: &'static str,
    flags: u64,
    options: &'static str,
}

const RESTRICTED: u64 = MS_NODEV | MS_NOEXEC | MS_NOSUID | MS_RELATIME;

/// In an order in which each finds its mount point.
const KERNEL_FILE_SYSTEMS: [KernelFileSystem; 6] = [
    KernelFileSystem {
        name: "devtmpfs",
        target: "/dev",
        flags: MS_NOSUID | MS_RELATIME,
        options: "mode=755",
    },
    KernelFileSystem {
        name: "proc",
        target: "/proc",
        flags: RESTRICTED,
        options: "",
    },
    KernelFileSystem {
        name: "sysfs",
        target: "/sys",
        flags: RESTRICTED,
        options: "",
    },
    KernelFileSystem {
        name: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: RESTRICTED,
        options: "",
    },
    KernelFileSystem {
        name: "devpts",
        target: "/dev/pts",
        flags: MS_NOEXEC | MS_NOSUID | MS_RELATIME,
        options: "gid=5,mode=620,ptmxmode=666",
    },
    KernelFileSystem {
        name: "tmpfs",
        target: "/dev/shm",
        flags: MS_NODEV | MS_NOEXEC | MS_NOSUID | MS_RELATIME,
        options: "mode=1777",
    },
];

/// Mounts what can be mounted. Kernels differ in what they have, and few programs need all of it; what is missing
/// for ports, the configuration or the program shows when they are looked for.
pub(crate) fn mount_those_of_the_kernel() {
    for file_system in &KERNEL_FILE_SYSTEMS {
        let _ = create_mount_point(Path::new(file_system.target));
        // EBUSY: the kernel has mounted devtmpfs already.
        let _ = sys::mount(
            file_system.name,
            file_system.target,
            file_system.name,
            file_system.flags,
            file_system.options,
        );
    }
    // Containers in the guest expect what systemd sets up: mounts that propagate.
    let _ = sys::mount("none", "/", "", MS_REC | MS_SHARED, "");
    link_descriptors();
    read_ahead::widen(Path::new("/"));
}

fn link_descriptors() {
    if !is_the_guests_own(Path::new("/dev")) {
        return;
    }
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    for (original, link) in links {
        let _ = symlink(original, link);
    }
}

/// Mounts what the configuration names.
pub(crate) fn mount(mount: &Mount) -> Result<(), Fault> {
    let target = &mount.target;
    let path = Path::new(target);
    match mount.kind {
        MountKind::File => create_file_mount_point(path),
        MountKind::Virtiofs | MountKind::Tmpfs => create_mount_point(path),
    }
    .map_err(|error| Fault::set_up(format!("cannot create the mount point {target:?}: {error}")))?;
    let read_only = if mount.read_only { MS_RDONLY } else { 0 };
    match mount.kind {
        MountKind::Virtiofs => mount_share(&mount.tag, target, read_only),
        MountKind::File => bind_file(&mount.tag, target, read_only),
        MountKind::Tmpfs => {
            let flags = MS_NODEV | MS_NOSUID | MS_RELATIME | read_only;
            sys::mount("tmpfs", target, "tmpfs", flags, "")
                .map_err(|error| Fault::set_up(format!("cannot mount a tmpfs on {target:?}: {error}")))
        }
    }
}

fn mount_share(tag: &str, target: &str, read_only: u64) -> Result<(), Fault> {
    sys::mount(tag, target, "virtiofs", MS_RELATIME | read_only, "")
        .map_err(|error| Fault::set_up(format!("cannot mount the share {tag:?} on {target:?}: {error}")))?;
    read_ahead::widen(Path::new(target));
    Ok(())
}

/// A file system has a folder for its root, so the file comes in one. That is mounted aside, over our own folder, which
/// nobody needs any more; what is bound from it stays when it goes.
fn bind_file(tag: &str, target: &str, read_only: u64) -> Result<(), Fault> {
    mount_share(tag, contract::FOLDER, read_only)?;
    let file = format!("{}/{}", contract::FOLDER, contract::SHARED_FILE);
    let bound = sys::mount(&file, target, "", MS_BIND, "");
    let put_away = sys::unmount(contract::FOLDER);
    bound.map_err(|error| Fault::set_up(format!("cannot mount the shared file {tag:?} on {target:?}: {error}")))?;
    put_away.map_err(|error| Fault::set_up(format!("cannot put the share {tag:?} away: {error}")))
}

/// Creates the folder if it is missing and would not be created on the host.
fn create_mount_point(target: &Path) -> io::Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    let parent = target
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("/"));
    if is_the_guests_own(parent) {
        std::fs::create_dir_all(target)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The same for a file to mount a file on. The kernel mounts on what a symbolic link leads to.
fn create_file_mount_point(target: &Path) -> io::Result<()> {
    if target.is_dir() {
        return Err(io::Error::other(
            "a folder is there, and a file can only be mounted on a file",
        ));
    }
    if target.exists() {
        return Ok(());
    }
    if let Ok(destination) = target.read_link() {
        let what = format!("a symbolic link to {destination:?} is there, which does not exist");
        return Err(io::Error::other(what));
    }
    let folder = target.parent().unwrap_or(Path::new("/"));
    create_mount_point(folder)?;
    if is_the_guests_own(folder) {
        std::fs::File::create_new(target).map(drop)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn is_the_guests_own(folder: &Path) -> bool {
    sys::file_system_magic(folder).is_ok_and(|magic| magic != FUSE_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_mount_point_on_own_file_system_is_created_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b");
        create_mount_point(&target).unwrap();
        assert!(target.is_dir());
    }

    #[test]
    fn mount_point_below_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(create_mount_point(&folder.path().join("file/b")).is_err());
    }

    #[test]
    fn missing_mount_point_of_a_file_on_own_file_system_is_an_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b");
        create_file_mount_point(&target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"");
        std::fs::write(&target, "kept").unwrap();
        create_file_mount_point(&target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }

    #[test]
    fn folder_or_broken_link_in_the_place_of_a_file_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |target: &Path| create_file_mount_point(target).unwrap_err().to_string();
        assert!(refusal(folder.path()).contains("a folder is there"));
        let link = folder.path().join("link");
        symlink("nowhere", &link).unwrap();
        assert!(refusal(&link).contains("\"nowhere\""), "{}", refusal(&link));
    }

    #[test]
    fn share_that_cannot_be_mounted_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for (kind, target, place) in [
            (MountKind::Virtiofs, folder.path(), folder.path()),
            (MountKind::File, &file, Path::new(contract::FOLDER)),
        ] {
            let share = Mount {
                kind,
                tag: "no-such-tag".into(),
                target: target.to_str().unwrap().to_owned(),
                read_only: true,
            };
            let message = mount(&share).unwrap_err().message;
            let names = ["no-such-tag", place.to_str().unwrap()];
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
    }
}
