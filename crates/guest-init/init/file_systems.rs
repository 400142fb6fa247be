//! Mounts: those that every program expects, and those that the configuration names.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::config::{Mount, MountKind};
use crate::fault::Fault;
use crate::sys::{self, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_RELATIME, MS_SHARED};

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
    create_mount_point(Path::new(target))
        .map_err(|error| Fault::set_up(format!("cannot create the mount point {target:?}: {error}")))?;
    let read_only = if mount.read_only { MS_RDONLY } else { 0 };
    match mount.kind {
        MountKind::Virtiofs => sys::mount(&mount.tag, target, "virtiofs", MS_RELATIME | read_only, "")
            .map_err(|error| Fault::set_up(format!("cannot mount the share {:?} on {target:?}: {error}", mount.tag))),
        MountKind::Tmpfs => {
            let flags = MS_NODEV | MS_NOSUID | MS_RELATIME | read_only;
            sys::mount("tmpfs", target, "tmpfs", flags, "")
                .map_err(|error| Fault::set_up(format!("cannot mount a tmpfs on {target:?}: {error}")))
        }
    }
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

fn is_the_guests_own(folder: &Path) -> bool {
    const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
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
    fn share_that_cannot_be_mounted_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().to_str().unwrap().to_owned();
        let share = Mount {
            kind: MountKind::Virtiofs,
            tag: "no-such-tag".into(),
            target: target.clone(),
            read_only: true,
        };
        let fault = mount(&share).unwrap_err();
        assert!(
            fault.message.contains("no-such-tag") && fault.message.contains(&target),
            "{}",
            fault.message
        );
    }
}
