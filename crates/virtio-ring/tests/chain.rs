//! Chains as byte streams, whatever the descriptors are like.

mod common;

use common::{Pair, device_ring};
use test_guest::{Buffer, Guest};
use virtio_ring::{Chain, ChainError, Nearby};
use vm_memory::Bytes;

const MESSAGE: &[u8] = b"the quick brown fox";

#[test]
fn read_at_of_a_message_cut_anywhere_returns_the_message() {
    for first in 0..=MESSAGE.len() {
        for second in first..=MESSAGE.len() {
            let mut pair = Pair::new(8);
            let pieces = pair.guest.readable_pieces(MESSAGE, &[first, second]);
            pair.driver.add(pair.guest.mem(), &pieces).unwrap();
            pair.pop().unwrap();

            let mut seen = vec![0; MESSAGE.len()];
            pair.chain.read_at(pair.guest.mem(), 0, &mut seen).unwrap();

            assert_eq!(pair.chain.readable_len(), MESSAGE.len());
            assert_eq!(seen, MESSAGE, "cut at {first} and {second}");
        }
    }
}

#[test]
fn read_at_with_offset_returns_that_part() {
    let mut pair = Pair::new(8);
    let pieces = pair.guest.readable_pieces(MESSAGE, &[1, 4, 9]);
    pair.driver.add(pair.guest.mem(), &pieces).unwrap();
    pair.pop().unwrap();

    for start in 0..=MESSAGE.len() {
        for end in start..=MESSAGE.len() {
            let mut seen = vec![0; end - start];
            pair.chain.read_at(pair.guest.mem(), start, &mut seen).unwrap();
            assert_eq!(seen, &MESSAGE[start..end]);
        }
    }
}

#[test]
fn write_at_across_buffers_fills_them_and_nothing_between() {
    let mut pair = Pair::new(8);
    let pieces = pair.guest.writable_pieces(&[3, 1, 0, 20]);
    pair.driver.add(pair.guest.mem(), &pieces).unwrap();
    pair.pop().unwrap();

    pair.chain.write_at(pair.guest.mem(), 2, MESSAGE).unwrap();

    let seen = pair.guest.bytes_of_all(&pieces);
    assert_eq!(pair.chain.writable_len(), 24);
    assert_eq!(&seen[2..21], MESSAGE);
    assert!(seen[..2].iter().chain(&seen[21..]).all(|&byte| byte == 0));
    let gap = pair.guest.read(pieces[0].addr + 3, 3);
    assert_eq!(gap, [0; 3]);
}

#[test]
fn access_past_the_end_is_refused_and_moves_nothing() {
    let mut pair = Pair::new(8);
    let readable = pair.guest.readable(b"abc");
    let writable = pair.guest.writable(3);
    pair.driver.add(pair.guest.mem(), &[readable, writable]).unwrap();
    pair.pop().unwrap();

    let mut seen = [9; 2];
    for (offset, len) in [(2, 2), (4, 0), (usize::MAX, 1), (usize::MAX, 0)] {
        let read = pair.chain.read_at(pair.guest.mem(), offset, &mut seen[..len]);
        assert!(matches!(read, Err(ChainError::OutOfRange { available: 3, .. })));
        let written = pair.chain.write_at(pair.guest.mem(), offset, &[5; 2][..len]);
        assert!(matches!(written, Err(ChainError::OutOfRange { available: 3, .. })));
    }
    assert_eq!(seen, [9; 2]);
    assert_eq!(pair.guest.bytes_of(writable), [0; 3]);
}

#[test]
fn slices_with_offset_and_limit_cover_just_that() {
    let mut pair = Pair::new(8);
    let pieces = pair.guest.readable_pieces(MESSAGE, &[1, 4, 9]);
    pair.driver.add(pair.guest.mem(), &pieces).unwrap();
    pair.pop().unwrap();

    for offset in 0..MESSAGE.len() + 2 {
        for limit in 0..MESSAGE.len() + 2 {
            let mut seen = Vec::new();
            for slice in pair.chain.readable_slices(pair.guest.mem(), offset, limit) {
                let slice = slice.unwrap();
                assert_ne!(slice.len(), 0);
                let mut part = vec![0; slice.len()];
                slice.read_slice(&mut part, 0).unwrap();
                seen.extend(part);
            }
            let start = offset.min(MESSAGE.len());
            assert_eq!(seen, &MESSAGE[start..(start + limit).min(MESSAGE.len())]);
        }
    }
}

#[test]
fn buffer_across_two_adjacent_regions_is_one_buffer_and_two_slices() {
    let guest = Guest::with_regions(&[(0, 0x4000), (0x4000, 0x4000)]);
    let mut driver = test_guest::SplitRing::new(0x1000, 4);
    guest.write(0x3ffa, MESSAGE);
    let len = u32::try_from(MESSAGE.len()).unwrap();
    driver.add(guest.mem(), &[Buffer::readable(0x3ffa, len)]).unwrap();
    let mut device = device_ring(&driver);
    let mut chain = Chain::new();
    assert!(device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap());

    let mut seen = vec![0; MESSAGE.len()];
    chain.read_at(guest.mem(), 0, &mut seen).unwrap();
    let slices: Vec<usize> = chain
        .readable_slices(guest.mem(), 0, usize::MAX)
        .map(|slice| slice.unwrap().len())
        .collect();

    assert_eq!(seen, MESSAGE);
    assert_eq!(chain.readable_segments().len(), 1);
    assert_eq!(slices, [6, MESSAGE.len() - 6]);
}

#[test]
fn indirect_tail_after_direct_descriptors_continues_the_streams() {
    let mut pair = Pair::new(8);
    let direct = pair.guest.readable_pieces(&MESSAGE[..7], &[3]);
    let mut inner = pair.guest.readable_pieces(&MESSAGE[7..], &[5]);
    inner.extend(pair.guest.writable_pieces(&[4, 5]));
    let table = pair.guest.alloc(64, 16);
    pair.driver
        .add_with_indirect_tail(pair.guest.mem(), &direct, table, &inner)
        .unwrap();
    pair.pop().unwrap();

    let mut seen = vec![0; MESSAGE.len()];
    pair.chain.read_at(pair.guest.mem(), 0, &mut seen).unwrap();

    assert_eq!(seen, MESSAGE);
    assert_eq!(pair.chain.writable_len(), 9);
}

#[test]
fn zero_length_descriptors_anywhere_leave_no_trace() {
    let mut pair = Pair::new(8);
    let nowhere = Buffer::readable(u64::MAX, 0);
    let byte = pair.guest.readable(b"x");
    let room = pair.guest.writable(2);
    pair.driver
        .add(
            pair.guest.mem(),
            &[nowhere, byte, nowhere, room, Buffer::writable(u64::MAX, 0)],
        )
        .unwrap();

    pair.pop().unwrap();

    assert_eq!(pair.chain.readable_segments().len(), 1);
    assert_eq!(pair.chain.writable_segments().len(), 1);
    assert_eq!((pair.chain.readable_len(), pair.chain.writable_len()), (1, 2));
}

#[test]
fn chain_of_only_empty_descriptors_is_an_empty_chain() {
    let mut pair = Pair::new(8);
    pair.driver
        .add(pair.guest.mem(), &[Buffer::readable(0, 0), Buffer::writable(0, 0)])
        .unwrap();

    pair.pop().unwrap();

    assert_eq!((pair.chain.readable_len(), pair.chain.writable_len()), (0, 0));
    assert_eq!(pair.device.malformed(), 0);
}

#[test]
fn chain_reused_for_a_shorter_one_forgets_the_longer() {
    let mut pair = Pair::new(8);
    let long = pair.guest.readable_pieces(MESSAGE, &[2, 4, 6]);
    let room = pair.guest.writable(3);
    pair.driver.add(pair.guest.mem(), &[long[0], long[1], room]).unwrap();
    pair.driver.add(pair.guest.mem(), &[long[3]]).unwrap();
    pair.pop().unwrap();

    pair.pop().unwrap();

    assert_eq!((pair.chain.readable_len(), pair.chain.writable_len()), (13, 0));
    assert_eq!(pair.chain.readable_segments().len(), 1);
}
