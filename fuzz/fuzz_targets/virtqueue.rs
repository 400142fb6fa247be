//! A driver that writes any bytes anywhere in memory, rings and descriptor tables included, between the turns of a
//! device.
//!
//! Byte 0: the queue size as a power of two in bits 0 to 2, EVENT_IDX in bit 3, indirect descriptors in bit 4. Then
//! writes, each with the turn of the device that follows it: address (2 bytes, little-endian), length (1 byte), bytes.
//! The descriptor table is at 0x1000, the available ring at 0x2000, the used ring at 0x3000; memory is 0 to 0x7fff, in
//! two regions that touch at 0x4000, and 0x9000 to 0x9fff.

#![no_main]

use libfuzzer_sys::fuzz_target;
use test_guest::Guest;
use virtio_queue::{Queue, QueueT};
use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::{GuestAddress, GuestMemoryBackend};

const REGIONS: [(u64, usize); 3] = [(0, 0x4000), (0x4000, 0x4000), (0x9000, 0x1000)];

fuzz_target!(|input: &[u8]| {
    let Some((&setup, mut writes)) = input.split_first() else {
        return;
    };
    let guest = Guest::with_regions(&REGIONS);
    let mut ring = ring(setup);
    let mut chain = Chain::new();
    while let Some((addr, bytes, rest)) = next_write(writes) {
        writes = rest;
        if guest.mem().check_range(GuestAddress(addr), bytes.len()) {
            guest.write(addr, bytes);
        }
        if turn(&guest, &mut ring, &mut chain).is_err() {
            assert!(!ring.is_ready());
            assert!(
                !ring
                    .pop(&Nearby::new(guest.mem()), &mut chain)
                    .expect("a stopped ring is empty")
            );
            return;
        }
    }
});

fn ring(setup: u8) -> Ring {
    let mut queue = Queue::new(1 << (setup & 7)).expect("a power of two");
    queue.set_desc_table_address(Some(0x1000), None);
    queue.set_avail_ring_address(Some(0x2000), None);
    queue.set_used_ring_address(Some(0x3000), None);
    queue.set_event_idx(setup & 8 != 0);
    queue.set_ready(true);
    Ring::new(queue).with_indirect(setup & 16 != 0)
}

fn next_write(input: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (&[low, high, len], rest) = input.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(usize::from(len))?;
    Some((u64::from(u16::from_le_bytes([low, high])), bytes, rest))
}

fn turn(guest: &Guest, ring: &mut Ring, chain: &mut Chain) -> Result<(), RingError> {
    let mem = guest.mem();
    let before = ring.malformed();
    let mut taken = 0;
    while ring.pop(&Nearby::new(mem), chain)? {
        check(guest, chain);
        if taken == 0 && chain.head().is_multiple_of(2) {
            ring.undo_pop();
            let head = chain.head();
            assert!(ring.pop(&Nearby::new(mem), chain)? && chain.head() == head);
        }
        let used = echo(guest, chain);
        ring.push_used(&Nearby::new(mem), chain.head(), used)?;
        taken += 1;
        // Each pass takes what the driver offers, but an echo can move the driver's index.
        if taken > 4 * ring.size() {
            break;
        }
    }
    assert!(ring.in_flight() <= ring.size());
    let published = guest.read(0x3002, 2);
    let wanted = ring.publish(&Nearby::new(mem))?;
    assert!(!wanted || taken > 0 || ring.malformed() > before || published != guest.read(0x3002, 2));
    ring.disable_notification(&Nearby::new(mem))?;
    ring.enable_notification(&Nearby::new(mem))?;
    Ok(())
}

fn check(guest: &Guest, chain: &Chain) {
    let total = |segments: &[(GuestAddress, u32)]| -> usize {
        assert!(
            segments
                .iter()
                .all(|&(addr, len)| len > 0 && guest.mem().check_range(addr, len as usize))
        );
        segments.iter().map(|&(_, len)| len as usize).sum()
    };
    assert_eq!(total(chain.readable_segments()), chain.readable_len());
    assert_eq!(total(chain.writable_segments()), chain.writable_len());
    let slices = chain.readable_slices(guest.mem(), 1, usize::MAX);
    let seen: usize = slices.map(|slice| slice.expect("checked when taken").len()).sum();
    assert_eq!(seen, chain.readable_len().saturating_sub(1));
}

/// The first bytes that were read, written back.
fn echo(guest: &Guest, chain: &Chain) -> u32 {
    let len = chain.readable_len().min(chain.writable_len()).min(64);
    let mut bytes = [0; 64];
    chain
        .read_at(guest.mem(), 0, &mut bytes[..len])
        .expect("checked when taken");
    chain
        .write_at(guest.mem(), 0, &bytes[..len])
        .expect("checked when taken");
    u32::try_from(len).expect("at most 64")
}
