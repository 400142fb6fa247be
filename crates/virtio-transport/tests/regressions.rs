//! Register writes that broke systems of this field, each with what a sound transport does. The comment names the public
//! source.

mod common;

use common::{FEATURES, Setup, TestHost};
use test_guest::{Buffer, Guest, SplitRing, log_lines, register as reg, status};
use virtio_ring::{Chain, Nearby};

const QUEUE_REGISTERS: [u64; 8] = [
    reg::QUEUE_SIZE,
    reg::QUEUE_READY,
    reg::QUEUE_DESC_LOW,
    reg::QUEUE_DESC_HIGH,
    reg::QUEUE_DRIVER_LOW,
    reg::QUEUE_DRIVER_HIGH,
    reg::QUEUE_DEVICE_LOW,
    reg::QUEUE_DEVICE_HIGH,
];

// CVE-2026-5747 (Firecracker).
#[test]
fn line_1_queue_registers_after_driver_ok_change_nothing() {
    for size in [0, 1, 32, 0x8000, 0xffff, u32::MAX] {
        let mut setup = Setup::started();
        for queue in 0..3 {
            setup.driver.write(reg::QUEUE_SEL, queue);
            for offset in QUEUE_REGISTERS {
                setup.driver.write(offset, size);
            }
        }

        assert_eq!(setup.worker().rings[0].size(), 16);
        assert_eq!(setup.transport().stats().writes_ignored, 24);
        setup.driver.write(reg::QUEUE_SEL, 0);
        assert_eq!(setup.driver.read(reg::QUEUE_READY), 1);
    }
}

// CVE-2026-50626 (QEMU virtio-mmio).
#[test]
fn line_1_queue_size_above_the_maximum_or_no_power_of_two_is_not_activated() {
    for size in [
        0,
        3,
        12,
        17,
        32,
        0x8000,
        0xffff,
        0x1_0000,
        0x1_0010,
        0x8000_0010,
        u32::MAX,
    ] {
        let mut setup = Setup::new().configured();
        setup.driver.write(reg::QUEUE_SEL, 0);
        setup.driver.write(reg::QUEUE_READY, 0);
        setup.driver.write(reg::QUEUE_SIZE, size);
        setup.driver.write(reg::QUEUE_READY, 1);

        assert_eq!(setup.driver.driver_ok(), 0x4f, "{size:#x}");

        assert_eq!(setup.device().activations, 0);
        assert_eq!(setup.driver.take_interrupt(), 2);
    }
}

// Firecracker PR 5818.
#[test]
fn line_2_status_that_clears_bits_is_ignored_unless_it_is_0() {
    let mut setup = Setup::started();

    for bits in 1..0x0f {
        setup.driver.write(reg::STATUS, bits);
        assert_eq!(setup.driver.status(), 0x0f, "{bits:#x}");
    }

    assert_eq!(setup.transport().stats().status_rejected, 14);
    assert_eq!(setup.host().calls, ["connect", "start"]);
}

#[test]
fn line_2_status_that_skips_or_joins_steps_is_ignored() {
    let mut setup = Setup::new();
    for wrong in [2, 3, 4, 8, 0xb, 0xf, 0x10, 0x20, 0x31, 0x100, 0xffff_ff00] {
        setup.driver.write(reg::STATUS, wrong);
        assert_eq!(setup.driver.status(), 0, "{wrong:#x}");
    }
    setup.driver.write(reg::STATUS, 1);
    for wrong in [5, 9, 0xb, 0xf, 0x11] {
        setup.driver.write(reg::STATUS, wrong);
        assert_eq!(setup.driver.status(), 1, "{wrong:#x}");
    }
    assert!(setup.host().calls.is_empty());
}

#[test]
fn line_2_queue_set_up_before_features_ok_changes_nothing() {
    let mut setup = Setup::new();
    for step in [0, status::ACKNOWLEDGE, status::DRIVER] {
        setup.driver.add_status(step);
        setup.driver.set_up_queue(0, &setup.rings[0]);
        assert_eq!(setup.driver.read(reg::QUEUE_READY), 0);
    }
}

#[test]
fn line_2_failed_activation_needs_reset_and_driver_ok_again_does_not_retry() {
    let mut setup = Setup::new().configured();
    setup.device().refuse = true;
    setup.driver.driver_ok();
    setup.device().refuse = false;

    for bits in 1..=0x7f {
        setup.driver.write(reg::STATUS, bits);
    }

    assert_eq!(setup.driver.status(), 0x4f);
    assert_eq!(setup.device().activations, 0);
    assert_eq!(setup.host().calls, ["connect"]);
}

// cloud-hypervisor issue 7917.
#[test]
fn line_3_sweep_of_queue_select_over_every_register_never_panics() {
    for started in [false, true] {
        let mut setup = if started {
            Setup::started()
        } else {
            Setup::new().configured()
        };
        for queue in (2..=0xffff).chain([0x1_0000, 0x1_0001, 0x8000_0000, u32::MAX]) {
            setup.driver.write(reg::QUEUE_SEL, queue);
            assert_eq!(setup.driver.read(reg::QUEUE_SIZE_MAX), 0);
            assert_eq!(setup.driver.read(reg::QUEUE_READY), 0);
            for offset in QUEUE_REGISTERS {
                setup.driver.write(offset, 1);
            }
            setup.driver.write(reg::QUEUE_NOTIFY, queue);
        }

        assert!(setup.host().notified.is_empty());
        assert_eq!(setup.transport().stats().notifications_ignored, 0xfffe + 4);
    }
}

#[test]
fn line_3_sweep_of_all_offsets_and_widths_never_panics() {
    let mut setup = Setup::started();
    let offsets = (0..0x1010).chain([0xffff, u64::from(u32::MAX), u64::MAX - 8, u64::MAX - 1, u64::MAX]);
    for offset in offsets.filter(|&offset| offset != reg::STATUS) {
        for len in [0, 1, 2, 3, 4, 8, 16] {
            setup.transport().read(offset, &mut vec![0xaa; len]);
            setup.transport().write(offset, &vec![0x55; len]);
        }
    }

    assert_eq!(setup.driver.status(), 0xf);
}

// Firecracker changelog: a ring partly over the MMIO gap.
#[test]
fn line_8_ring_not_wholly_in_memory_is_not_activated() {
    let good = [0x1000, 0x2000, 0x3000];
    let bad = [
        0x7ff0,
        0x8000,
        0xf000,
        0x1_3ff0,
        0xd000_0000,
        0xffff_ffff_ffff_fff0,
        0xffff_ffff_ffff_f000,
    ];
    for part in 0..3 {
        for addr in bad {
            let mut parts = good;
            parts[part] = addr;
            let guest = Guest::with_regions(&[(0, 0x8000), (0x1_0000, 0x4000)]);
            let mut setup = Setup::with_guest(guest, TestHost::default());
            setup.driver.negotiate(FEATURES);
            setup
                .driver
                .set_up_queue(0, &SplitRing::at(parts[0], parts[1], parts[2], 16));

            assert_eq!(setup.driver.driver_ok(), 0x4f, "part {part} at {addr:#x}");
            assert_eq!(setup.device().activations, 0);
        }
    }
}

#[test]
fn line_8_misaligned_ring_is_not_activated_and_no_earlier_address_is_used() {
    for parts in [
        [0x1008, 0x2000, 0x3000],
        [0x1000, 0x2001, 0x3000],
        [0x1000, 0x2000, 0x3002],
    ] {
        let mut setup = Setup::new().configured();
        setup.driver.write(reg::QUEUE_SEL, 0);
        setup.driver.write(reg::QUEUE_READY, 0);
        setup
            .driver
            .set_up_queue(0, &SplitRing::at(parts[0], parts[1], parts[2], 16));

        assert_eq!(setup.driver.driver_ok(), 0x4f, "{parts:x?}");
        assert_eq!(setup.device().activations, 0);
    }
}

#[test]
fn line_8_ring_up_to_the_last_byte_of_memory_is_activated() {
    // 16 descriptors: 256, 38 and 134 bytes.
    for parts in [
        [0xff00, 0x2000, 0x3000],
        [0x1000, 0xffda, 0x3000],
        [0x1000, 0x2000, 0xff78],
    ] {
        let mut setup = Setup::new();
        setup.driver.negotiate(FEATURES);
        setup
            .driver
            .set_up_queue(0, &SplitRing::at(parts[0], parts[1], parts[2], 16));

        assert_eq!(setup.driver.driver_ok(), 0xf, "{parts:x?}");
    }
}

#[test]
fn line_8_ring_one_step_past_the_last_byte_of_memory_is_not_activated() {
    for parts in [
        [0xff10, 0x2000, 0x3000],
        [0x1000, 0xffdc, 0x3000],
        [0x1000, 0x2000, 0xff7c],
    ] {
        let mut setup = Setup::new();
        setup.driver.negotiate(FEATURES);
        setup
            .driver
            .set_up_queue(0, &SplitRing::at(parts[0], parts[1], parts[2], 16));

        assert_eq!(setup.driver.driver_ok(), 0x4f, "{parts:x?}");
    }
}

#[test]
fn notification_while_not_running_goes_nowhere() {
    let mut setup = Setup::new().configured();
    setup.driver.notify(0);
    setup.driver.driver_ok();
    setup.driver.notify(2);
    setup.driver.notify(0x1_0000);
    setup.driver.reset();
    setup.driver.notify(0);

    assert!(setup.host().notified.is_empty());
    assert_eq!(setup.transport().stats().notifications_ignored, 4);
}

#[test]
fn interrupt_acknowledged_before_driver_ok_does_nothing() {
    let mut setup = Setup::new().configured();

    setup.driver.write(reg::INTERRUPT_ACK, u32::MAX);

    assert_eq!(setup.driver.driver_ok(), 0xf);
}

/// A guest's driver can reset its device as often as it likes.
#[test]
fn malformed_chain_after_each_reset_is_one_line_in_the_log_and_counted() {
    let lines = log_lines("virtio_ring", || {
        let mut setup = Setup::new();
        for round in 1..=20 {
            setup.start();
            let Setup { guest, rings, .. } = &mut setup;
            let mem = guest.shared_mem();
            let [first, _] = rings;
            *first = SplitRing::new(first.desc_table(), first.size()).starting_at(&mem, 0);
            first
                .add(&mem, &[Buffer::readable(u64::MAX, 1)])
                .expect("room in the ring");
            let ring = &mut setup.worker().rings[0];
            assert!(!ring.pop(&Nearby::new(&*mem), &mut Chain::new()).unwrap());
            assert_eq!(ring.malformed(), round);
            setup.driver.reset();
        }
    });

    assert_eq!(lines, 1);
}
