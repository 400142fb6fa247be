//! Who is told to bypass the guest's cache, as a driver sees it in the replies to CREATE and OPEN.

mod common;

use common::message::u32_at;
use common::{Driver, ROOT, share};
use virtio_fs::passthrough::PassthroughConfig;

const DIRECT_IO: u32 = 1;
const DIRECT_IO_ALLOW_MMAP: u32 = 1 << 4;

const READ: i32 = libc::O_RDONLY;
const WRITE: i32 = libc::O_WRONLY;

/// The node of a new file, its handle and the flags of the reply.
fn create(driver: &mut Driver, flags: i32) -> (u64, u64, u32) {
    let (entry, handle) = driver.create(ROOT, b"file", 0o644, flags | libc::O_EXCL).unwrap();
    (entry.node(), handle, u32_at(&entry.0, 136))
}

#[test]
fn writer_and_those_who_come_meanwhile_bypass_the_cache_until_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = share(folder.path(), PassthroughConfig::default());
    let (node, writer, flags) = create(&mut driver, WRITE);
    assert_eq!(flags, DIRECT_IO);
    let (reader, flags) = driver.open(node, READ).unwrap();
    assert_eq!(flags, DIRECT_IO);
    let (second_writer, flags) = driver.open(node, WRITE).unwrap();
    assert_eq!(flags, DIRECT_IO);
    driver.release(node, writer);
    assert_eq!(driver.open(node, READ).unwrap().1, DIRECT_IO);
    driver.release(node, second_writer);
    // Readers are left, none of whom writes.
    assert_eq!(driver.open(node, READ).unwrap().1, 0);
    driver.release(node, reader);
}

#[test]
fn writer_of_a_file_that_is_open_already_writes_through_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = share(folder.path(), PassthroughConfig::default());
    let (node, first, flags) = create(&mut driver, libc::O_RDWR);
    assert_eq!(flags, 0);
    let (writer, flags) = driver.open(node, WRITE).unwrap();
    assert_eq!(flags, 0);
    driver.release(node, first);
    driver.release(node, writer);
    assert_eq!(driver.open(node, WRITE).unwrap().1, DIRECT_IO);
}

/// Through the cache an append goes out in pieces that end with the pages of what the guest takes for the file, and what
/// others append may come between them.
#[test]
fn record_that_is_appended_is_not_torn_at_the_pages_of_the_guests_cache() {
    for mode in [WRITE, libc::O_RDWR] {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = share(folder.path(), PassthroughConfig::default());
        let (node, writer, flags) = create(&mut driver, mode | libc::O_APPEND);
        assert_eq!(flags, DIRECT_IO, "{mode}");
        // It counts as a writer around the cache for those who come meanwhile.
        let (reader, flags) = driver.open(node, READ).unwrap();
        assert_eq!(flags, DIRECT_IO, "{mode}");
        driver.release(node, writer);
        driver.release(node, reader);
        let (reader, flags) = driver.open(node, READ).unwrap();
        assert_eq!(flags, 0, "{mode}");
        // What a reader has cached is written through the cache.
        assert_eq!(driver.open(node, mode | libc::O_APPEND).unwrap().1, 0, "{mode}");
        driver.release(node, reader);
    }
}

#[test]
fn reader_is_not_taken_for_a_writer_for_its_o_append() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = share(folder.path(), PassthroughConfig::default());
    let (node, writer, _) = create(&mut driver, WRITE);
    driver.release(node, writer);
    assert_eq!(driver.open(node, READ | libc::O_APPEND).unwrap().1, 0);
}

#[test]
fn guest_that_cannot_map_what_bypasses_its_cache_never_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = share(folder.path(), PassthroughConfig::default());
    driver
        .init_with(38, 0x7bff_fffb, 0x1ff & !DIRECT_IO_ALLOW_MMAP)
        .unwrap();
    let (node, _, flags) = create(&mut driver, WRITE);
    assert_eq!(flags, 0);
    assert_eq!(driver.open(node, READ).unwrap().1, 0);
}

/// A reset closes what the guest had open, the root among it.
#[test]
fn writer_of_a_guest_that_is_gone_counts_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = share(folder.path(), PassthroughConfig::default());
    create(&mut driver, WRITE);
    driver.init();
    let node = driver.lookup(ROOT, b"file").unwrap().node();
    assert_eq!(driver.open(node, READ).unwrap().1, 0);
}
