//! What a guest can make the process hold. Alone in its program, as it lowers the limit of the whole process.

mod common;

use std::fs;

use common::{ROOT, mounted};
use rustix::process::{Resource, Rlimit};
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};

const EMFILE: i32 = 24;

/// msb_krun keeps a descriptor for each inode and dies of it in pjdfstest after 354 cases.
#[test]
fn a_guest_that_knows_a_thousand_inodes_does_not_exhaust_descriptors() {
    let temp = tempfile::tempdir().unwrap();
    let limit = Rlimit {
        current: Some(128),
        maximum: Some(4096),
    };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    for handles in [true, false] {
        // More than the limit: running out is met, not avoided.
        let config = PassthroughConfig {
            cached_descriptors: 1000,
            ..PassthroughConfig::default()
        };
        let back_end = Passthrough::new(temp.path(), config).unwrap();
        let mut driver = mounted(if handles {
            back_end
        } else {
            back_end.without_file_handles()
        });
        let mut nodes = Vec::new();
        for number in 0..500 {
            let name = format!("folder-{number}-{handles}");
            let folder = driver.mkdir(ROOT, name.as_bytes(), 0o755).unwrap().node();
            let (file, handle) = driver.create(folder, b"file", 0o644, 0o2).unwrap();
            driver.write(file.node(), handle, 0, name.as_bytes(), 0).unwrap();
            driver.release(file.node(), handle);
            nodes.push((folder, file.node(), name));
        }
        for (folder, file, name) in &nodes {
            let (handle, _) = driver.open(*file, 0).unwrap();
            assert_eq!(driver.read(*file, handle, 0, 100).unwrap(), name.as_bytes());
            driver.release(*file, handle);
            assert!(driver.lookup(*folder, b"file").is_ok());
        }
        // Open files do use descriptors, and the guest is told when there are none left.
        let file = nodes[0].1;
        let mut open = Vec::new();
        let errno = loop {
            match driver.open(file, 0) {
                Ok((handle, _)) => open.push(handle),
                Err(errno) => break errno,
            }
        };
        assert_eq!(errno, EMFILE);
        assert!(open.len() > 90, "cached descriptors are given up first: {}", open.len());
        for handle in open {
            driver.release(file, handle);
        }
        assert!(driver.open(nodes[77].1, 0).is_ok());
        drop(driver);
    }
    deep_folders_are_found_again(temp.path());
}

/// A chain of folders longer than what one system call takes a path of.
fn deep_folders_are_found_again(folder: &std::path::Path) {
    let config = PassthroughConfig {
        cached_descriptors: 4,
        ..PassthroughConfig::default()
    };
    let mut driver = mounted(Passthrough::new(folder, config).unwrap().without_file_handles());
    let name = [b'd'; 200];
    let mut chain = vec![ROOT];
    for depth in 0..30 {
        chain.push(driver.mkdir(chain[depth], &name, 0o755).unwrap().node());
    }
    // 30 * 201 bytes are more than the host takes for a path.
    for node in chain.iter().take(15).chain(chain.iter().rev().take(10)) {
        assert_eq!(driver.getattr(*node).unwrap().mode() & 0o170_000, 0o040_000);
    }
    assert!(driver.create(chain[30], b"file", 0o644, 0o2).is_ok());
    let _ = driver.lookup(chain[2], &name);
    let _ = driver.lookup(chain[9], &name);
    assert!(driver.lookup(chain[30], b"file").is_ok());
    drop(driver);
    assert!(fs::metadata(folder.join(std::str::from_utf8(&name).unwrap())).is_ok());
}
