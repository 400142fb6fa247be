//! What the tests share: a driver that writes FUSE messages by hand, from the protocol and not from our own structs.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod kernel;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod tree;

use std::path::Path;

pub(crate) use queue::Driver;
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};
use virtio_fs::{FileSystem, Server};

pub(crate) const ROOT: u64 = queue::ROOT_NODE;

/// A driver of a server of `file_system`, which it has mounted.
pub(crate) fn mounted(file_system: impl FileSystem + 'static) -> Driver {
    let mut driver = Driver::new(Server::new(Box::new(file_system)));
    driver.init();
    driver
}

/// A driver of a folder, mounted.
pub(crate) fn share(folder: &Path, config: PassthroughConfig) -> Driver {
    mounted(Passthrough::new(folder, config).unwrap())
}

/// Everything beneath a folder with its content, to be compared before and after. The folder's own times do not count.
pub(crate) fn snapshot(folder: &Path) -> Vec<(String, u32, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt;
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if meta.is_dir() {
                folders.push(path.clone());
            }
            all.push((path.to_string_lossy().into_owned(), meta.mode(), content));
        }
    }
    all.sort();
    all
}

/// Whether this test runs as root. Tests that need it say so when they are skipped.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
