//! Requests of the steady state cost no allocation. Alone in its program, as it counts for the whole process.
#![allow(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::message::{Body, Caller, op, request};
use common::{Driver, ROOT, share};
use test_guest::Buffer;
use virtio_fs::passthrough::PassthroughConfig;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations while the device handles one request.
fn cost(driver: &mut Driver, opcode: u32, node: u64, body: &Body, room: u32) -> usize {
    let message = request(opcode, 5, node, Caller::default(), &body.0);
    driver.guest.write(driver.request_at, &message);
    let buffers = [
        Buffer::readable(driver.request_at, u32::try_from(message.len()).unwrap()),
        Buffer::writable(driver.reply_at, room),
    ];
    driver.rings[1].add(driver.guest.mem(), &buffers).unwrap();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let _ = driver.handler.process(driver.guest.mem());
    let cost = ALLOCATIONS.load(Ordering::Relaxed) - before;
    driver.rings[1].poll_used(driver.guest.mem()).unwrap();
    assert_eq!(
        driver.guest.read(driver.reply_at + 4, 4),
        [0; 4],
        "operation {opcode} failed"
    );
    cost
}

#[test]
fn data_and_attributes_cost_no_allocation_once_warm() {
    let temp = tempfile::tempdir().unwrap();
    let mut driver = share(temp.path(), PassthroughConfig::default());
    let (entry, handle) = driver.create(ROOT, b"file", 0o644, 0o2).unwrap();
    let node = entry.node();
    let data = || Body::new().u64(handle).u64(0).u32(4096).u32(0).u64(0).u64(0);
    let requests = [
        (op::LOOKUP, ROOT, Body::new().string(b"file"), 144),
        (op::GETATTR, node, Body::new().u64(0).u64(0), 120),
        (op::WRITE, node, data().bytes(&[7; 4096]), 24),
        (op::READ, node, data(), 16 + 4096),
        (op::STATFS, node, Body::new(), 96),
    ];
    for round in 0..3 {
        for (opcode, node, body, room) in &requests {
            let cost = cost(&mut driver, *opcode, *node, body, *room);
            // The first round sizes the buffers.
            assert!(round == 0 || cost == 0, "operation {opcode}: {cost} allocations");
        }
    }
}
