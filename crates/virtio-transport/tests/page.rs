//! The registers as memory that the driver reads, and in part writes, without asking.

mod common;

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use common::{DEVICE_ID, FEATURES, QUEUE_SIZES, Setup, Shared, TestHost};
use test_guest::{Guest, register as reg};
use virtio_transport::{FIRST_INTERRUPT_REGISTER, MMIO_LEN, RegisterPage};

fn on(page: &Shared) -> Setup {
    Setup::on_page(
        Guest::new(0x10000),
        TestHost::default(),
        RegisterPage::new(page.clone()),
    )
}

#[test]
fn identity_and_config_space_stand_in_the_page_from_the_start() {
    let page = Shared::new();
    let _setup = on(&page);

    assert_eq!(page.word(reg::MAGIC_VALUE), u32::from_le_bytes(*b"virt"));
    assert_eq!(page.word(reg::DEVICE_ID), DEVICE_ID);
    assert_eq!(page.word(reg::QUEUE_SIZE_MAX), u32::from(QUEUE_SIZES[0]));
    assert_eq!(page.word(0x100), 0x0403_0201);
    assert_eq!(page.word(0x108), 0x0c0b_0a09);
}

#[test]
fn each_selector_shows_what_it_selects() {
    let page = Shared::new();
    let mut setup = on(&page);

    setup.driver.write(reg::QUEUE_SEL, 1);
    setup.driver.write(reg::DEVICE_FEATURES_SEL, 1);
    setup.driver.write(reg::SHM_SEL, 3);

    assert_eq!(page.word(reg::QUEUE_SIZE_MAX), u32::from(QUEUE_SIZES[1]));
    assert_eq!(page.word(reg::DEVICE_FEATURES), 1, "VIRTIO_F_VERSION_1");
    assert_eq!(page.word(reg::SHM_LEN_LOW), 1);
}

#[test]
fn what_the_worker_raises_is_in_the_page_and_reset_takes_it_back() {
    let page = Shared::new();
    let mut setup = on(&page);
    setup.start();
    assert_eq!(page.word(reg::STATUS), 0xf);

    setup.worker().interrupt.used_ring();
    assert_eq!(page.word(reg::INTERRUPT_STATUS), 1);
    setup.worker().interrupt.needs_reset();
    assert_eq!(page.word(reg::INTERRUPT_STATUS), 3);
    assert_eq!(page.word(reg::STATUS), 0x4f);

    setup.driver.reset();
    assert_eq!(page.word(reg::INTERRUPT_STATUS), 0);
    assert_eq!(page.word(reg::STATUS), 0);
}

#[test]
fn config_space_that_the_worker_changes_is_in_the_page_under_a_new_generation() {
    let page = Shared::new();
    let mut setup = on(&page);
    setup.start();
    let before = page.word(reg::CONFIG_GENERATION);

    setup.worker().interrupt.config_changed(&[9, 8]);

    assert_eq!(page.word(0x100), 0x0403_0809);
    assert_ne!(page.word(reg::CONFIG_GENERATION), before);
    assert_eq!(setup.driver.config::<2>(0), [9, 8]);
}

#[test]
fn config_space_that_the_host_changes_before_the_driver_is_in_the_page_when_the_driver_comes() {
    let page = Shared::new();
    let mut setup = on(&page);
    setup.device().config[0] = 77;

    setup.driver.write(reg::STATUS, 1);

    assert_eq!(page.word(0x100), 0x0403_024d);
}

#[test]
fn acknowledged_used_buffers_are_told_to_the_host_and_nothing_else() {
    let mut setup = Setup::new();
    setup.driver.write(reg::INTERRUPT_ACK, 1);
    setup.start();
    setup.worker().interrupt.used_ring();
    setup.worker().interrupt.config_changed(&[]);

    for bits in [2, 3, 1, 0, 1] {
        setup.driver.write(reg::INTERRUPT_ACK, bits);
    }

    assert_eq!(setup.host().acknowledged, 2);
}

#[test]
fn page_too_small_reads_as_zeros_beyond_its_end() {
    let words: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::default()).collect();
    let mut setup = Setup::on_page(Guest::new(0x10000), TestHost::default(), RegisterPage::new(words));

    assert_eq!(setup.driver.read(reg::DEVICE_ID), DEVICE_ID);
    setup.driver.write(reg::STATUS, 1);
    assert_eq!(setup.driver.read(reg::STATUS), 0);
    assert_eq!(setup.driver.config::<4>(0), [0; 4]);
}

/// A driver that runs, and whose memory the registers are from InterruptStatus on.
fn running() -> (Shared, Setup) {
    let page = Shared::new();
    let mut setup = on(&page);
    setup.start();
    (page, setup)
}

#[test]
fn reset_that_nobody_heard_of_is_done_when_the_driver_looks_at_a_queue() {
    let (page, mut setup) = running();

    page.set(reg::STATUS, 0);
    setup.driver.write(reg::QUEUE_SEL, 1);

    assert_eq!(setup.device().returned, [1]);
    assert!(!setup.transport().is_active());
    assert_eq!(setup.driver.status(), 0);
    assert_eq!(
        setup.driver.read(reg::QUEUE_SIZE_MAX),
        u32::from(QUEUE_SIZES[1]),
        "the access counts"
    );
}

#[test]
fn driver_that_begins_anew_unheard_has_a_device_as_after_any_reset() {
    let (page, mut setup) = running();
    setup.worker().interrupt.config_changed(&[]);
    let generation = page.word(reg::CONFIG_GENERATION);
    for offset in (FIRST_INTERRUPT_REGISTER..MMIO_LEN).step_by(4) {
        if offset != reg::CONFIG_GENERATION {
            page.set(offset, 0x5a5a_5a5a);
        }
    }
    for status in [0, 1, 3] {
        page.set(reg::STATUS, status);
    }

    setup.driver.write(reg::DEVICE_FEATURES_SEL, 0);

    assert_eq!(setup.device().returned, [1]);
    assert_eq!(setup.driver.status(), 3);
    assert_eq!(setup.driver.config::<12>(0), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(setup.driver.read(reg::INTERRUPT_STATUS), 0);
    assert_eq!(setup.driver.read(reg::SHM_LEN_LOW), u32::MAX);
    assert_eq!(setup.driver.read(0x84), 0);
    assert_eq!(page.word(reg::CONFIG_GENERATION), generation);
    setup.driver.set_driver_features(FEATURES | 1 << 32);
    setup.driver.add_status(8);
    assert_eq!(setup.driver.status(), 0xb);

    setup.start();
    assert_eq!(setup.worker().number, 2);
    assert_eq!(setup.worker().features, FEATURES | 1 << 32);
}

#[test]
fn driver_that_gives_up_unheard_stops_the_worker() {
    let (page, mut setup) = running();

    page.set(reg::STATUS, 0x8f);
    page.set(reg::INTERRUPT_ACK, 1);
    setup.driver.write(reg::QUEUE_SEL, 0);

    assert_eq!(setup.device().returned, [1]);
    assert_eq!(setup.driver.status(), 0x8f);
    assert_eq!(setup.driver.read(reg::INTERRUPT_ACK), 0);
}

#[test]
fn status_that_means_nothing_is_taken_back_and_counted() {
    let (page, mut setup) = running();

    page.set(reg::STATUS, 0xffff_ff0f);

    assert_eq!(setup.driver.status(), 0xf);
    assert!(setup.transport().is_active());
    assert_eq!(setup.transport().stats().status_rejected, 1);
}

#[test]
fn worker_of_a_driver_that_has_reset_unheard_is_told_to_finish_nothing() {
    let (page, mut setup) = running();
    page.set(reg::STATUS, 0);
    setup.transport().shutdown(Duration::ZERO);
    assert_eq!(setup.device().finished, [None]);
}

#[test]
fn driver_that_takes_needs_reset_back_has_a_device_that_needs_it_still() {
    let (page, mut setup) = running();
    setup.worker().interrupt.needs_reset();
    let edges = setup.edges();

    page.set(reg::STATUS, 0xf);

    assert!(setup.worker().interrupt.is_reset_needed());
    setup.worker().interrupt.needs_reset();
    assert_eq!(setup.edges(), edges);
    assert_eq!(setup.driver.status(), 0x4f);
    assert!(setup.device().returned.is_empty());
}
