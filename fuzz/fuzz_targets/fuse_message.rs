//! Any FUSE messages to a share that has secrets beside it, and nothing outside may be touched.
//!
//! An input is a list of messages: operation, node, handle, length, arguments. Nodes and handles are taken from what
//! earlier replies named, so that messages get past the look-up; the top bit of the operation passes them on as they are.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use virtio_fs::passthrough::{LockPolicy, Passthrough, PassthroughConfig};
use virtio_fs::{MemoryFs, Server};

#[path = "../../crates/virtio-fs/tests/common/message.rs"]
#[allow(dead_code, reason = "shared with the crate's tests")]
mod message;
#[path = "../../crates/virtio-fs/tests/common/queue.rs"]
#[allow(dead_code, reason = "shared with the crate's tests")]
mod queue;

use message::{Caller, op, request, u64_at};
use queue::Driver;

/// Operations whose reply starts with a node.
const NAMING: [u32; 7] = [
    op::LOOKUP,
    op::SYMLINK,
    op::MKNOD,
    op::MKDIR,
    op::LINK,
    op::CREATE,
    op::TMPFILE,
];

/// Operations whose arguments start with a handle.
const WITH_HANDLE: [u32; 15] = [
    op::READ,
    op::WRITE,
    op::RELEASE,
    op::FLUSH,
    op::READDIR,
    op::READDIRPLUS,
    op::RELEASEDIR,
    op::GETLK,
    op::SETLK,
    op::SETLKW,
    op::IOCTL,
    op::FALLOCATE,
    op::LSEEK,
    op::COPY_FILE_RANGE,
    op::FSYNC,
];

/// These wait for the disk and find nothing.
const SLOW: [u32; 3] = [op::FSYNC, 30, op::SYNCFS];

fuzz_target!(|input: &[u8]| {
    static LIMITS: Once = Once::new();
    LIMITS.call_once(limit_files);
    let Some((mode, messages)) = input.split_first() else {
        return;
    };
    let scene = Scene::new();
    let config = PassthroughConfig {
        read_only: mode & 1 != 0,
        locks: if mode & 2 != 0 {
            LockPolicy::Host
        } else {
            LockPolicy::Guest
        },
        cached_descriptors: 2,
        max_nodes: 64,
        max_open_files: 16,
        ..PassthroughConfig::default()
    };
    let server = match mode & 4 {
        0 => Server::new(Box::new(Passthrough::new(&scene.shared, config).unwrap())),
        _ => Server::new(Box::new(MemoryFs::new(1 << 20))),
    };
    let before = scene.outside();
    let inside = fs::read(scene.shared.join("file")).unwrap();
    let mut driver = Driver::new(server);
    driver.init();
    play(&mut driver, messages);
    drop(driver);
    assert!(scene.outside() == before, "something outside the share was touched");
    if mode & 1 != 0 || mode & 4 != 0 {
        assert_eq!(fs::read(scene.shared.join("file")).unwrap(), inside);
        assert_eq!(fs::read_dir(&scene.shared).unwrap().count(), 3);
    }
});

fn play(driver: &mut Driver, mut messages: &[u8]) {
    let (mut nodes, mut handles) = (vec![1u64], vec![0u64]);
    while let [opcode, node, handle, len, rest @ ..] = messages {
        let (arguments, later) = rest.split_at(usize::from(*len).min(rest.len()));
        messages = later;
        let opcode = u32::from(*opcode);
        let (raw, opcode) = (opcode & 0x80 != 0, (opcode & 0x7f) % 60);
        if SLOW.contains(&opcode) {
            continue;
        }
        let mut arguments = arguments.to_vec();
        let node_id = if raw {
            u64::from(*node)
        } else {
            nodes[usize::from(*node) % nodes.len()]
        };
        let named = WITH_HANDLE.contains(&opcode) && !raw;
        if let Some(first) = arguments.first_chunk_mut::<8>().filter(|_| named) {
            *first = handles[usize::from(*handle) % handles.len()].to_le_bytes();
        }
        let by = Caller {
            uid: u32::from(node & 1),
            gid: 0,
            pid: u32::from(handle & 1),
        };
        let message = request(opcode, 7, node_id, by, &arguments);
        let reply = submit(driver, &message, 300 * usize::from(*handle % 32));
        if reply.len() >= 16 + 8 && reply[4..8] == [0; 4] {
            match opcode {
                _ if NAMING.contains(&opcode) => {
                    nodes.push(u64_at(&reply, 16));
                    if reply.len() >= 16 + 144 {
                        handles.push(u64_at(&reply, 16 + 128));
                    }
                }
                op::OPEN | op::OPENDIR => handles.push(u64_at(&reply, 16)),
                _ => {}
            }
        }
    }
}

/// A request may wait for a lock, so there may be no reply.
fn submit(driver: &mut Driver, message: &[u8], room: usize) -> Vec<u8> {
    let (asked, answer) = (driver.request_at, driver.reply_at);
    driver.guest.write(asked, message);
    let mut buffers = vec![test_guest::Buffer::readable(asked, message.len() as u32)];
    if room > 0 {
        buffers.push(test_guest::Buffer::writable(answer, room as u32));
    }
    let Some(head) = driver.rings[1].add(driver.guest.mem(), &buffers) else {
        return Vec::new();
    };
    // What a vCPU leaves is for whoever has more time.
    let in_passing = driver.handler.process_in_passing(driver.guest.mem());
    let progress = driver.handler.process(driver.guest.mem());
    assert!(!in_passing.needs_reset && !progress.needs_reset && !progress.more);
    // Requests that waited may come back with this one.
    let used = driver.rings[1].poll_all_used(driver.guest.mem());
    match used.iter().find(|used| used.id == u32::from(head)) {
        Some(used) => {
            assert!(used.len as usize <= room);
            driver.guest.read(answer, used.len as usize)
        }
        None => Vec::new(),
    }
}

struct Scene {
    folder: PathBuf,
    shared: PathBuf,
}

impl Scene {
    /// In memory where the machine has a place for that.
    fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let folder = base.join(format!("fuse-message-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let shared = folder.join("shared");
        fs::create_dir_all(shared.join("folder")).unwrap();
        fs::write(shared.join("file"), b"inside").unwrap();
        fs::write(folder.join("secret"), b"outside").unwrap();
        fs::create_dir(folder.join("beside")).unwrap();
        std::os::unix::fs::symlink("../secret", shared.join("link")).unwrap();
        Self { folder, shared }
    }

    /// All that must stay as it is.
    fn outside(&self) -> Vec<(String, u64, i64, i64, Vec<u8>)> {
        use std::os::unix::fs::MetadataExt;
        let mut all = Vec::new();
        for name in ["", "secret", "beside"] {
            let path = self.folder.join(name);
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = fs::read(&path).unwrap_or_default();
            all.push((
                name.to_owned(),
                meta.nlink(),
                meta.mtime_nsec(),
                meta.ctime_nsec(),
                content,
            ));
        }
        all
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A guest may make files as large as the host lets it; here that is 1 MiB, and an error beyond.
fn limit_files() {
    let limit = rustix::process::Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    // SAFETY: ignoring a signal takes no handler. The default for this one ends the process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
