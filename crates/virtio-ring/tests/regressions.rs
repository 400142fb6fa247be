//! Inputs that broke systems of this field, each with what a sound ring does. The comment names the public source.

mod common;
#[path = "common/short.rs"]
mod short;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Pair, device_ring};
use short::ShortMemory;
use test_guest::{Buffer, Descriptor, Guest, SplitRing, descriptor_flags as flags};
use virtio_queue::{Queue, QueueT};
use virtio_ring::{Chain, ChainError, Nearby, Ring, RingError};

/// Offers a chain that starts at descriptor 0, and expects it back with length 0 and the next, good one to come.
fn assert_given_back(pair: &mut Pair) {
    pair.driver.offer_head(pair.guest.mem(), 0);
    let byte = pair.guest.readable(b"x");
    let last = pair.driver.size() - 1;
    let good = Descriptor {
        addr: byte.addr,
        len: 1,
        ..Descriptor::default()
    };
    pair.driver.set_descriptor(pair.guest.mem(), last, good);
    pair.driver.offer_head(pair.guest.mem(), last);

    assert_eq!(pair.pop(), Some(last));
    pair.push(last, 0);
    assert!(pair.publish());

    assert_eq!(pair.device.malformed(), 1);
    assert_eq!(pair.driver.used_idx(pair.guest.mem()), 2);
    let returned = pair.driver.used_element(pair.guest.mem(), 0);
    assert_eq!((returned.id, returned.len), (0, 0));
    assert!(pair.device.is_ready());
}

fn set(pair: &Pair, index: u16, descriptor: Descriptor) {
    pair.driver.set_descriptor(pair.guest.mem(), index, descriptor);
}

// vm-virtio PR 196, Firecracker issue 3149, cloud-hypervisor PR 7605.
#[test]
fn line_4_avail_idx_more_than_the_queue_ahead_stops_the_ring_once_and_for_all() {
    for idx in [5, 6, 0x7fff, 0x8000, 0xffff] {
        let mut pair = Pair::new(4);
        pair.driver.set_avail_idx(pair.guest.mem(), idx);

        let first = pair.device.pop(&Nearby::new(pair.guest.mem()), &mut pair.chain);

        assert!(
            matches!(
                first,
                Err(RingError::Broken {
                    size: 4,
                    next_used: 0,
                    ..
                })
            ),
            "{idx}"
        );
        assert!(!pair.device.is_ready());
        pair.driver.set_avail_idx(pair.guest.mem(), 1);
        assert_eq!(pair.pop(), None, "a stopped ring stays stopped");
        assert!(
            !pair.device.enable_notification(&Nearby::new(pair.guest.mem())).unwrap(),
            "so that no caller spins"
        );
    }
}

#[test]
fn line_4_avail_idx_that_goes_back_stops_the_ring() {
    let mut pair = Pair::new(4);
    pair.offer();
    pair.offer();
    pair.pop().unwrap();
    pair.pop().unwrap();
    pair.driver.set_avail_idx(pair.guest.mem(), 1);

    assert!(matches!(
        pair.device.pop(&Nearby::new(pair.guest.mem()), &mut pair.chain),
        Err(RingError::Broken { .. })
    ));
}

/// The same head again and again, never waiting for the used ring: what a device holds stays bounded by the queue.
#[test]
fn line_4_driver_that_reuses_chains_that_are_out_stops_the_ring() {
    let mut pair = Pair::new(4);
    let byte = pair.guest.readable(b"x");
    set(
        &pair,
        0,
        Descriptor {
            addr: byte.addr,
            len: 1,
            ..Descriptor::default()
        },
    );
    for _ in 0..4 {
        pair.driver.offer_head(pair.guest.mem(), 0);
        pair.pop().unwrap();
    }

    pair.driver.offer_head(pair.guest.mem(), 0);

    assert!(matches!(
        pair.device.pop(&Nearby::new(pair.guest.mem()), &mut pair.chain),
        Err(RingError::Broken { .. })
    ));
    assert_eq!(pair.device.in_flight(), 4);
}

// vm-virtio PR 173.
#[test]
fn line_5_queue_of_size_0_is_never_ready() {
    let mut queue = Queue::default();
    queue.set_ready(true);
    assert_eq!(queue.size(), 0);
    let guest = Guest::new(0x10000);
    let mut device = Ring::new(queue);

    assert!(!device.is_ready());
    assert!(!device.pop(&Nearby::new(guest.mem()), &mut Chain::new()).unwrap());
    assert!(device.push_used(&Nearby::new(guest.mem()), 0, 0).is_err());
    assert!(!device.publish(&Nearby::new(guest.mem())).unwrap());
    assert!(!device.enable_notification(&Nearby::new(guest.mem())).unwrap());
}

// openvmm issue 4045 and PR 4036: the worker spins and cannot be stopped.
#[test]
fn line_6_chain_that_is_a_cycle_goes_back() {
    for next in [0, 1] {
        let mut pair = Pair::new(4);
        set(
            &pair,
            0,
            Descriptor {
                addr: 0x1000,
                len: 1,
                flags: flags::NEXT,
                next: 1,
            },
        );
        set(
            &pair,
            1,
            Descriptor {
                addr: 0x1000,
                len: 1,
                flags: flags::NEXT,
                next,
            },
        );
        assert_given_back(&mut pair);
    }
}

#[test]
fn line_6_next_out_of_range_goes_back() {
    for next in [4, 5, u16::MAX] {
        let mut pair = Pair::new(4);
        set(
            &pair,
            0,
            Descriptor {
                addr: 0x1000,
                len: 1,
                flags: flags::NEXT,
                next,
            },
        );
        assert_given_back(&mut pair);
    }
}

#[test]
fn line_6_head_out_of_range_stops_the_ring() {
    for head in [4, 5, u16::MAX] {
        let mut pair = Pair::new(4);
        pair.driver.offer_head(pair.guest.mem(), head);

        let popped = pair.device.pop(&Nearby::new(pair.guest.mem()), &mut pair.chain);

        assert!(matches!(popped, Err(RingError::HeadOutOfRange { size: 4, .. })));
        assert_eq!(pair.pop(), None);
        assert!(!pair.publish(), "there is nothing to give back");
    }
}

#[test]
fn line_6_indirect_in_indirect_goes_back() {
    let mut pair = Pair::new(4);
    let table = pair.guest.alloc(32, 16);
    Descriptor {
        addr: table,
        len: 16,
        flags: flags::INDIRECT,
        next: 0,
    }
    .write_to(pair.guest.mem(), table);
    set(
        &pair,
        0,
        Descriptor {
            addr: table,
            len: 16,
            flags: flags::INDIRECT,
            next: 0,
        },
    );
    assert_given_back(&mut pair);
}

#[test]
fn line_6_indirect_with_a_next_goes_back() {
    let mut pair = Pair::new(4);
    let table = pair.guest.alloc(32, 16);
    set(
        &pair,
        0,
        Descriptor {
            addr: table,
            len: 16,
            flags: flags::INDIRECT | flags::NEXT,
            next: 1,
        },
    );
    assert_given_back(&mut pair);
}

#[test]
fn line_6_indirect_table_outside_memory_goes_back() {
    for addr in [0x10_0000, 0xf_fff8, u64::MAX, u64::MAX - 15, u64::MAX - 31] {
        let mut pair = Pair::new(4);
        set(
            &pair,
            0,
            Descriptor {
                addr,
                len: 32,
                flags: flags::INDIRECT,
                next: 0,
            },
        );
        assert_given_back(&mut pair);
    }
}

#[test]
fn line_6_indirect_table_of_a_wrong_length_goes_back() {
    for len in [0, 1, 15, 17, 16 * 1025, u32::MAX, 0xffff_fff0, 16 << 16] {
        let mut pair = Pair::new(4);
        set(
            &pair,
            0,
            Descriptor {
                addr: 0x1000,
                len,
                flags: flags::INDIRECT,
                next: 0,
            },
        );
        assert_given_back(&mut pair);
    }
}

#[test]
fn line_6_cycle_or_index_out_of_range_in_an_indirect_table_goes_back() {
    for next in [0, 1, 2, u16::MAX] {
        let mut pair = Pair::new(4);
        let table = pair.guest.alloc(32, 16);
        let looping = |next| Descriptor {
            addr: 0x1000,
            len: 1,
            flags: flags::NEXT,
            next,
        };
        looping(1).write_to(pair.guest.mem(), table);
        looping(next).write_to(pair.guest.mem(), table + 16);
        set(
            &pair,
            0,
            Descriptor {
                addr: table,
                len: 32,
                flags: flags::INDIRECT,
                next: 0,
            },
        );
        assert_given_back(&mut pair);
    }
}

/// A driver on another vCPU can add broken chains as fast as they are given back: one call looks at one queue full.
#[test]
fn line_6_queue_full_of_broken_chains_ends_the_pop() {
    let mut pair = Pair::new(4);
    set(
        &pair,
        0,
        Descriptor {
            addr: 0,
            len: 1,
            flags: flags::NEXT,
            next: 9,
        },
    );
    for _ in 0..4 {
        pair.driver.offer_head(pair.guest.mem(), 0);
    }

    assert_eq!(pair.pop(), None);

    assert_eq!(pair.device.malformed(), 4);
    assert!(pair.publish());
    assert_eq!(pair.driver.used_idx(pair.guest.mem()), 4);
}

// vm-virtio PR 220.
#[test]
fn line_7_indirect_table_at_an_unaligned_address_is_taken() {
    for misalignment in 1..16 {
        let mut pair = Pair::new(4);
        let byte = pair.guest.readable(b"x");
        let room = pair.guest.writable(1);
        let table = pair.guest.alloc(64, 16) + misalignment;
        pair.driver
            .add_indirect(pair.guest.mem(), table, &[byte, room])
            .unwrap();

        assert!(pair.pop().is_some());
        assert_eq!((pair.chain.readable_len(), pair.chain.writable_len()), (1, 1));
    }
}

#[test]
fn line_7_indirect_table_across_two_regions_is_taken() {
    let guest = Guest::with_regions(&[(0, 0x4000), (0x4000, 0x4000)]);
    let mut driver = SplitRing::new(0x1000, 4);
    let buffers = [Buffer::readable(0x2000, 1), Buffer::writable(0x2000, 2)];
    driver.add_indirect(guest.mem(), 0x4000 - 24, &buffers).unwrap();
    let mut device = device_ring(&driver);
    let mut chain = Chain::new();

    assert!(device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap());
    assert_eq!((chain.readable_len(), chain.writable_len()), (1, 2));
}

// Firecracker changelog: ring partly over the MMIO gap. The transport refuses it; the ring stands it.
#[test]
fn line_8_ring_outside_memory_stops_at_the_first_access_there() {
    let guest = Guest::with_regions(&[(0, 0x4000), (0x10000, 0x4000)]);
    for (desc, avail, used) in [
        (0x1000, 0x8000, 0x2000),
        (0x1000, 0x3fff_fffe, 0x2000),
        (0x1000, !1, 0x2000),
    ] {
        let mut device = device_ring(&SplitRing::at(desc, avail, used, 4));

        assert!(matches!(
            device.pop(&Nearby::new(guest.mem()), &mut Chain::new()),
            Err(RingError::Memory(_))
        ));
        assert!(!device.is_ready());
        assert!(!device.pop(&Nearby::new(guest.mem()), &mut Chain::new()).unwrap());
    }
}

#[test]
fn line_8_used_ring_outside_memory_stops_at_the_push() {
    for used in [0x8000, 0x3ff8, !3] {
        let mut guest = Guest::with_regions(&[(0, 0x4000), (0x10000, 0x4000)]);
        let mut driver = SplitRing::at(0x1000, 0x2000, used, 4);
        let byte = guest.readable(b"x");
        let mut device = device_ring(&driver);
        let mut chain = Chain::new();
        for _ in 0..2 {
            driver.add(guest.mem(), &[byte]).unwrap();
            assert!(device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap());
        }

        let first = device.push_used(&Nearby::new(guest.mem()), 0, 0);
        let second = device.push_used(&Nearby::new(guest.mem()), 1, 0);

        assert!(first.and(second).is_err(), "{used:#x}");
        assert!(!device.is_ready());
    }
}

#[test]
fn line_8_descriptor_table_outside_memory_gives_chains_back() {
    for desc in [0x8000, !15] {
        let guest = Guest::with_regions(&[(0, 0x4000), (0x10000, 0x4000)]);
        let mut driver = SplitRing::at(desc, 0x2000, 0x3000, 4);
        driver.offer_head(guest.mem(), 1);
        let mut device = device_ring(&driver);

        assert!(!device.pop(&Nearby::new(guest.mem()), &mut Chain::new()).unwrap());
        assert_eq!(device.malformed(), 1);
    }
}

#[test]
fn line_8_buffer_that_leaves_memory_or_wraps_goes_back() {
    let buffers = [
        (0x10_0000, 1),
        (0xf_ffff, 2),
        (0xf_0000, u32::MAX),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (u64::MAX - 0xfff, 0x1000),
        (u64::MAX - 0xfff, 0x2000),
    ];
    for (addr, len) in buffers {
        for write in [0, flags::WRITE] {
            let mut pair = Pair::new(4);
            set(
                &pair,
                0,
                Descriptor {
                    addr,
                    len,
                    flags: write,
                    next: 0,
                },
            );
            assert_given_back(&mut pair);
        }
    }
}

#[test]
fn line_8_buffer_over_a_gap_between_regions_goes_back() {
    let guest = Guest::with_regions(&[(0, 0x4000), (0x5000, 0x4000)]);
    let mut driver = SplitRing::new(0x1000, 4);
    driver.add(guest.mem(), &[Buffer::readable(0x3ff0, 0x2000)]).unwrap();
    let mut device = device_ring(&driver);

    assert!(!device.pop(&Nearby::new(guest.mem()), &mut Chain::new()).unwrap());
    assert_eq!(device.malformed(), 1);
}

// CVE-2020-13759: an index read byte by byte while the driver counts past 0x00ff.
#[test]
fn line_9_index_read_while_the_driver_counts_is_never_torn() {
    let mut pair = Pair::new(256);
    let byte = pair.guest.readable(b"x");
    for index in 0..256 {
        set(
            &pair,
            index,
            Descriptor {
                addr: byte.addr,
                len: 1,
                ..Descriptor::default()
            },
        );
        pair.driver.set_avail_entry(pair.guest.mem(), index, index);
    }
    let done = Arc::new(AtomicBool::new(false));
    let counting = std::thread::spawn({
        let (guest, driver, done) = (pair.guest.clone(), pair.driver.clone(), Arc::clone(&done));
        // Jumps of both bytes at once. A torn read is 0x01ff or 0x0000: too far ahead, or backwards.
        move || {
            let mut idx: u16 = 0;
            while !done.load(Ordering::Relaxed) {
                if driver.used_idx(guest.mem()) == idx {
                    idx = idx.wrapping_add(0xff);
                    driver.set_avail_idx(guest.mem(), idx);
                }
            }
        }
    });

    let mut taken = 0_u32;
    while taken < 20_000 {
        while let Some(head) = pair.pop() {
            pair.push(head, 0);
            taken += 1;
        }
        pair.publish();
    }
    done.store(true, Ordering::Relaxed);
    counting.join().unwrap();

    assert!(pair.device.is_ready());
    assert_eq!(pair.device.malformed(), 0);
}

// CVE-2023-41051: memory whose slices are shorter than asked for.
#[test]
fn line_10_short_slices_are_errors_and_never_panics() {
    for longest in [0, 1, 7, 8, 15] {
        let mut pair = Pair::new(4);
        let bytes = pair.guest.readable(&[5; 64]);
        let room = pair.guest.writable(64);
        pair.driver.add(pair.guest.mem(), &[bytes, room]).unwrap();
        let short = ShortMemory::new(&pair.guest, longest);
        let mut device = device_ring(&pair.driver);

        let popped = device.pop(&Nearby::new(&short), &mut pair.chain);

        // Below 2 bytes the indices fail, below 16 the descriptors.
        assert!(!popped.unwrap_or(false), "{longest}");
        assert_eq!(device.is_ready(), longest >= 8, "{longest}");
    }
}

#[test]
fn line_10_short_slices_under_a_chain_are_errors() {
    let mut pair = Pair::new(4);
    let bytes = pair.guest.readable(&[5; 64]);
    let room = pair.guest.writable(64);
    pair.driver.add(pair.guest.mem(), &[bytes, room]).unwrap();
    pair.pop().unwrap();
    let short = ShortMemory::new(&pair.guest, 16);

    let mut seen = [0; 64];
    assert!(matches!(
        pair.chain.read_at(&short, 0, &mut seen),
        Err(ChainError::Memory(_))
    ));
    assert!(matches!(
        pair.chain.write_at(&short, 0, &[6; 64]),
        Err(ChainError::Memory(_))
    ));
    assert_eq!(
        pair.chain.readable_slices(&short, 0, 64).count(),
        1,
        "an error ends the iteration"
    );
    assert!(pair.chain.readable_slices(&short, 0, 64).all(|slice| slice.is_err()));
    assert_eq!(pair.guest.bytes_of(room), [0; 64]);
}

// cloud-hypervisor PR 8401 (leak) and PR 8142 (worker death).
#[test]
fn line_11_malformed_chain_goes_back_and_the_next_is_served() {
    let mut pair = Pair::new(4);
    set(
        &pair,
        0,
        Descriptor {
            addr: 0x1000,
            len: 1,
            flags: flags::WRITE | flags::NEXT,
            next: 1,
        },
    );
    set(
        &pair,
        1,
        Descriptor {
            addr: 0x1000,
            len: 1,
            flags: 0,
            next: 0,
        },
    );
    assert_given_back(&mut pair);
}

#[test]
fn line_11_malformed_chain_without_a_good_one_still_reaches_the_driver() {
    let mut pair = Pair::new(4);
    set(
        &pair,
        0,
        Descriptor {
            addr: u64::MAX,
            len: 1,
            ..Descriptor::default()
        },
    );
    pair.driver.offer_head(pair.guest.mem(), 0);

    assert_eq!(pair.pop(), None);

    assert!(pair.publish(), "and the driver is told");
    assert_eq!(pair.driver.used_idx(pair.guest.mem()), 1);
}

// Firecracker PR 5762 and PR 5794: host memory in proportion to what the guest writes into lengths.
#[test]
fn line_12_huge_lengths_cost_no_host_memory() {
    let mut pair = Pair::new(4);
    let table = pair.guest.alloc(16 * 1024, 16);
    for index in 0..1024 {
        let descriptor = Descriptor {
            addr: 0,
            len: 0x10_0000,
            flags: flags::WRITE | flags::NEXT,
            next: index + 1,
        };
        descriptor.write_to(pair.guest.mem(), table + 16 * u64::from(index));
    }
    Descriptor {
        addr: 0,
        len: 1,
        flags: flags::WRITE,
        next: 0,
    }
    .write_to(pair.guest.mem(), table + 16 * 1023);
    set(
        &pair,
        0,
        Descriptor {
            addr: table,
            len: 16 * 1024,
            flags: flags::INDIRECT,
            next: 0,
        },
    );
    pair.driver.offer_head(pair.guest.mem(), 0);

    // 1,023 MiB claimed in 1 MiB of memory: 16 bytes of host memory for each descriptor, and no more.
    assert_eq!(pair.pop(), Some(0));
    assert_eq!(pair.chain.writable_segments().len(), 1024);
    assert_eq!(pair.chain.writable_len(), 1023 * 0x10_0000 + 1);
}

#[test]
fn line_12_more_than_4_gib_in_all_goes_back() {
    let guest = Guest::with_regions(&[(0, 0x10_0000), (0x1_0000_0000, 0x6000_0000)]);
    for (third, expected) in [(0x3fff_ffff, true), (0x4000_0000, false)] {
        let mut driver = SplitRing::new(0x1000, 4);
        let mut device = device_ring(&driver);
        let half = Buffer::readable(0x1_0000_0000, 0x6000_0000);
        driver.set_avail_idx(guest.mem(), 0);
        driver
            .add(guest.mem(), &[half, half, Buffer::writable(0x1_0000_0000, third)])
            .unwrap();

        assert_eq!(
            device.pop(&Nearby::new(guest.mem()), &mut Chain::new()).unwrap(),
            expected
        );
        assert_eq!(device.malformed(), u64::from(!expected));
    }
}
