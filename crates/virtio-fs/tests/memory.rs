//! What a tree in memory takes of the host. Alone in its program, as it counts for the whole process.
#![allow(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{ROOT, mounted};
use virtio_fs::MemoryFs;

struct Counting;

/// Bytes that were allocated and not freed.
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::new(());

/// Each file gives its share of the bound back, and the next one takes it.
#[test]
fn files_that_were_made_shorter_take_no_more_than_what_is_in_them() {
    const SIZE: u32 = 1 << 3;
    const ROOM: usize = 1 << 20;
    let _alone = ALONE.lock().unwrap();
    let mut driver = mounted(MemoryFs::new(ROOM));
    let before = LIVE.load(Ordering::Relaxed);
    for number in 0..50 {
        let name = format!("file-{number}");
        let (entry, _) = driver.create(ROOT, name.as_bytes(), 0o644, 0o2).unwrap();
        driver.setattr(entry.node(), SIZE, 900 << 10, 0, (0, 0)).unwrap();
        driver.setattr(entry.node(), SIZE, number, 0, (0, 0)).unwrap();
    }
    let taken = LIVE.load(Ordering::Relaxed) - before;
    assert!(taken < ROOM, "{taken} bytes");
}

/// As many names as there may be, as long as they may be, and as much data as there may be.
#[test]
fn a_full_tree_takes_no_more_than_three_times_what_it_may_hold() {
    const ROOM: usize = 4 << 20;
    let _alone = ALONE.lock().unwrap();
    let mut driver = mounted(MemoryFs::new(ROOM));
    let before = LIVE.load(Ordering::Relaxed);
    let name = |number: usize| format!("{number:0255}").into_bytes();
    for number in 0.. {
        let Ok((entry, handle)) = driver.create(ROOT, &name(number), 0o644, 0o2) else {
            assert!(number > 8000, "{number} files");
            break;
        };
        let _ = driver.write(entry.node(), handle, 0, &[7; 512], 0);
    }
    let taken = LIVE.load(Ordering::Relaxed) - before;
    assert!(taken < 3 * ROOM, "{taken} bytes");
}
