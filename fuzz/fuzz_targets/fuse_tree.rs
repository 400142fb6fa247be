//! Lists of operations on a shared folder against the same on a folder of the host. An operation is five bytes; see
//! `Tree` in the tests of virtio-fs. The first byte chooses how inodes are found again.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use virtio_fs::Server;
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};

#[path = "../../crates/virtio-fs/tests/common/message.rs"]
#[allow(dead_code, reason = "shared with the crate's tests")]
mod message;
#[path = "../../crates/virtio-fs/tests/common/queue.rs"]
#[allow(dead_code, reason = "shared with the crate's tests")]
mod queue;
#[path = "../../crates/virtio-fs/tests/common/tree.rs"]
#[allow(dead_code, reason = "shared with the crate's tests")]
mod tree;

fuzz_target!(|input: &[u8]| {
    let Some((mode, operations)) = input.split_first() else {
        return;
    };
    let scene = Scene::new();
    let config = PassthroughConfig {
        cached_descriptors: usize::from(mode >> 1),
        ..PassthroughConfig::default()
    };
    let back_end = Passthrough::new(&scene.shared, config).unwrap();
    let forgetful = mode & 1 != 0;
    let back_end = if forgetful {
        back_end.without_file_handles()
    } else {
        back_end
    };
    let mut driver = queue::Driver::new(Server::new(Box::new(back_end)));
    driver.init();
    tree::Tree::new(&mut driver, &scene.model, forgetful).run(operations);
});

struct Scene {
    folder: PathBuf,
    shared: PathBuf,
    model: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let folder = base.join(format!("fuse-tree-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let (shared, model) = (folder.join("shared"), folder.join("model"));
        fs::create_dir_all(&shared).unwrap();
        fs::create_dir(&model).unwrap();
        Self { folder, shared, model }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
