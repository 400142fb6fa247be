//! What the driver reads and writes, register by register.

mod common;

use common::{DEVICE_ID, FEATURES, Setup, VERSION_1};
use test_guest::register as reg;

#[test]
fn identity_registers_read_the_values_of_the_standard() {
    let mut driver = Setup::new().driver;

    assert_eq!(driver.read(reg::MAGIC_VALUE), 0x7472_6976);
    assert_eq!(driver.read(reg::VERSION), 2);
    assert_eq!(driver.read(reg::DEVICE_ID), DEVICE_ID);
    assert_eq!(driver.read(reg::VENDOR_ID), 0);
}

#[test]
fn device_features_are_offered_in_two_windows_with_version_1() {
    let mut driver = Setup::new().driver;

    assert_eq!(driver.device_features(), FEATURES | VERSION_1);
    driver.write(reg::DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(reg::DEVICE_FEATURES), 0);
    driver.write(reg::DEVICE_FEATURES_SEL, u32::MAX);
    assert_eq!(driver.read(reg::DEVICE_FEATURES), 0);
}

#[test]
fn agreed_features_reach_the_worker() {
    let mut setup = Setup::new();

    setup.driver.start(0b100 | 1 << 29, &[&setup.rings[0], &setup.rings[1]]);

    assert_eq!(setup.worker().features, 0b100 | 1 << 29 | VERSION_1);
}

#[test]
fn queue_size_max_is_that_of_the_selected_queue() {
    let mut driver = Setup::new().driver;

    let mut max = |queue| {
        driver.write(reg::QUEUE_SEL, queue);
        driver.read(reg::QUEUE_SIZE_MAX)
    };

    assert_eq!([max(0), max(1), max(2), max(0x1_0000), max(u32::MAX)], [16, 8, 0, 0, 0]);
}

#[test]
fn queue_ready_reads_back_what_was_written() {
    let mut setup = Setup::new();
    setup.driver.negotiate(0);
    setup.driver.configure_queue(1, &setup.rings[1]);
    assert_eq!(setup.driver.read(reg::QUEUE_READY), 0);

    setup.driver.write(reg::QUEUE_READY, 1);
    assert_eq!(setup.driver.read(reg::QUEUE_READY), 1);
    setup.driver.write(reg::QUEUE_SEL, 0);
    assert_eq!(setup.driver.read(reg::QUEUE_READY), 0);
    setup.driver.write(reg::QUEUE_SEL, 1);
    setup.driver.write(reg::QUEUE_READY, 0);
    assert_eq!(setup.driver.read(reg::QUEUE_READY), 0);
}

#[test]
fn queue_that_is_ready_keeps_its_size_and_addresses() {
    let mut setup = Setup::new();
    setup.driver.negotiate(0);
    setup.driver.set_up_queue(0, &setup.rings[0]);

    for offset in [0x38, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4] {
        setup.driver.write(offset, 0x9999_9999);
    }

    assert_eq!(setup.transport().stats().writes_ignored, 7);
    assert_eq!(setup.driver.driver_ok(), 0xf);
    assert!(setup.worker().rings[0].is_ready());
}

#[test]
fn queue_left_disabled_is_an_empty_ring_in_its_place() {
    let mut setup = Setup::new();
    setup.driver.negotiate(0);
    setup.driver.set_up_queue(1, &setup.rings[1]);

    setup.driver.driver_ok();

    let ready: Vec<bool> = setup.worker().rings.iter().map(virtio_ring::Ring::is_ready).collect();
    assert_eq!(ready, [false, true]);
}

#[test]
fn smaller_queue_size_than_the_maximum_is_used() {
    let mut setup = Setup::new();
    let small = setup.guest.ring(4);
    setup.driver.start(0, &[&small]);

    assert_eq!(setup.worker().rings[0].size(), 4);
}

#[test]
fn interrupt_status_shows_and_acknowledges_each_cause() {
    let mut setup = Setup::started();
    setup.worker().interrupt.used_ring();
    setup.worker().interrupt.config_changed(&[]);
    assert_eq!(setup.driver.read(reg::INTERRUPT_STATUS), 3);

    setup.driver.write(reg::INTERRUPT_ACK, 1);

    assert_eq!(setup.driver.read(reg::INTERRUPT_STATUS), 2);
    assert_eq!(setup.driver.take_interrupt(), 2);
    assert_eq!(setup.driver.read(reg::INTERRUPT_STATUS), 0);
}

#[test]
fn config_space_is_read_in_any_width_and_ends_in_zeros() {
    let mut driver = Setup::new().driver;

    assert_eq!(driver.config::<1>(2), [3]);
    assert_eq!(driver.config::<2>(1), [2, 3]);
    assert_eq!(driver.config::<4>(0), [1, 2, 3, 4]);
    assert_eq!(driver.config::<8>(8), [9, 10, 11, 12, 0, 0, 0, 0]);
    assert_eq!(driver.config::<4>(0xefc), [0; 4]);
    assert_eq!(driver.config::<8>(0xeff), [0; 8]);
}

#[test]
fn config_space_written_reads_back() {
    let mut setup = Setup::started();

    setup.driver.registers.0.write(0x102, &[77, 78]);

    assert_eq!(setup.driver.config::<4>(1), [2, 77, 78, 5]);
}

#[test]
fn config_generation_moves_with_changes_and_survives_reset() {
    let mut setup = Setup::new();
    let before = setup.driver.read(reg::CONFIG_GENERATION);

    setup.transport().config_changed();
    setup.start();
    setup.worker().interrupt.config_changed(&[]);
    setup.transport().config_changed();
    setup.driver.reset();

    assert_eq!(
        setup.driver.read(reg::CONFIG_GENERATION),
        before + 6,
        "before and after each"
    );
    assert_eq!(setup.edges(), 2, "only a running driver is told");
}

#[test]
fn shared_memory_of_a_region_that_is_there_reads_its_place() {
    let mut driver = Setup::new().driver;

    driver.write(reg::SHM_SEL, 3);

    assert_eq!([driver.read(reg::SHM_LEN_LOW), driver.read(reg::SHM_LEN_HIGH)], [1, 2]);
    assert_eq!(
        [driver.read(reg::SHM_BASE_LOW), driver.read(reg::SHM_BASE_HIGH)],
        [0x2345_6789, 1]
    );
}

#[test]
fn shared_memory_of_another_id_reads_all_ones() {
    let mut driver = Setup::new().driver;

    for id in [0, 1, 2, 4, u32::MAX] {
        driver.write(reg::SHM_SEL, id);
        for offset in [0xb0, 0xb4, 0xb8, 0xbc] {
            assert_eq!(driver.read(offset), u32::MAX);
        }
    }
}

#[test]
fn notification_reaches_the_host_with_the_queue() {
    let mut setup = Setup::started();

    setup.driver.notify(1);
    setup.driver.notify(0);

    assert_eq!(setup.host().notified, [1, 0]);
}

#[test]
fn access_of_a_wrong_width_or_alignment_reads_zero_and_writes_nothing() {
    let mut setup = Setup::started();
    let transport = setup.transport();
    let shapes = [
        (0x70, 1),
        (0x70, 2),
        (0x70, 8),
        (0x71, 4),
        (0x6e, 4),
        (0xfd, 4),
        (0x70, 0),
        (0x70, 3),
    ];
    for (offset, len) in shapes {
        let mut data = vec![0xff; len];
        transport.read(offset, &mut data);
        assert!(data.iter().all(|&byte| byte == 0), "{offset:#x} {len}");
        transport.write(offset, &vec![0; len]);
    }

    assert_eq!(transport.stats().accesses_malformed, 2 * 8);
    assert_eq!(setup.driver.status(), 0xf, "no part of a reset got through");
}

#[test]
fn registers_that_are_not_there_read_zero() {
    let mut driver = Setup::started().driver;

    for offset in [
        0x18, 0x1c, 0x28, 0x2c, 0x3c, 0x40, 0x48, 0x4c, 0x54, 0x68, 0x6c, 0x74, 0xc0, 0xc4, 0xf8,
    ] {
        assert_eq!(driver.read(offset), 0, "{offset:#x}");
    }
    for write_only in [
        0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac,
    ] {
        assert_eq!(driver.read(write_only), 0, "{write_only:#x}");
    }
}
