//! From reset to DRIVER_OK and back, and what the host and the device see of it.

mod common;

use std::time::Duration;

use common::{FEATURES, Setup, TestHost};
use test_guest::{register as reg, status};

#[test]
fn device_that_no_driver_takes_costs_the_host_nothing() {
    let mut setup = Setup::new().configured();

    assert!(setup.host().calls.is_empty());
    setup.driver.reset();
    assert!(setup.host().calls.is_empty());
}

#[test]
fn driver_ok_connects_then_starts() {
    let mut setup = Setup::started();

    assert_eq!(setup.host().calls, ["connect", "start"]);
    assert!(setup.transport().is_active());
}

#[test]
fn reset_stops_the_worker_and_gives_it_back() {
    let mut setup = Setup::started();
    setup.worker().interrupt.used_ring();

    setup.driver.reset();

    assert_eq!(setup.host().calls, ["connect", "start", "stop"]);
    assert_eq!(setup.device().returned, [1]);
    assert_eq!(setup.driver.status(), 0);
    assert_eq!(setup.driver.read(reg::INTERRUPT_STATUS), 0);
    setup.driver.write(reg::QUEUE_SEL, 0);
    assert_eq!(setup.driver.read(reg::QUEUE_READY), 0);
}

#[test]
fn activation_after_reset_works_any_number_of_times() {
    let mut setup = Setup::new();

    for round in 1..=20 {
        setup.start();
        assert_eq!(setup.worker().number, round);
    }

    assert_eq!(setup.device().returned, (1..20).collect::<Vec<_>>());
    assert_eq!(setup.transport().stats(), virtio_transport::Stats::default());
}

#[test]
fn reset_twice_stops_once() {
    let mut setup = Setup::started();

    setup.driver.reset();
    setup.driver.reset();

    assert_eq!(setup.host().calls, ["connect", "start", "stop"]);
}

#[test]
fn shutdown_gives_the_worker_back() {
    let mut setup = Setup::started();

    setup.transport().shutdown(Duration::ZERO);
    setup.transport().shutdown(Duration::ZERO);

    assert_eq!(setup.device().returned, [1]);
    assert!(!setup.host().connected);
    assert!(!setup.transport().is_active());
}

#[test]
fn worker_is_told_to_finish_by_shutdown_and_not_by_a_reset() {
    let mut setup = Setup::started();
    setup.start();

    setup.transport().shutdown(Duration::from_secs(3));

    assert_eq!(setup.device().finished, [None, Some(Duration::from_secs(3))]);
}

#[test]
fn failed_written_by_a_driver_stops_the_worker_at_once() {
    let mut setup = Setup::started();

    let seen = setup.driver.add_status(status::FAILED);

    assert_eq!(seen, 0x8f);
    assert_eq!(setup.device().returned, [1]);
    assert!(!setup.host().connected);
}

#[test]
fn failed_latches_until_reset() {
    for steps in [&[][..], &[1], &[1, 3], &[1, 3, 0xb]] {
        let mut setup = Setup::new();
        for &bits in steps {
            setup.driver.write(reg::DRIVER_FEATURES_SEL, 1);
            setup.driver.write(reg::DRIVER_FEATURES, 1);
            setup.driver.write(reg::STATUS, bits);
        }
        let before = setup.driver.status();

        setup.driver.add_status(status::FAILED);
        for bits in 1..=0xff {
            setup.driver.write(reg::STATUS, bits);
        }

        assert_eq!(setup.driver.status(), before | status::FAILED);
        setup.driver.reset();
        assert_eq!(setup.driver.status(), 0);
        setup.start();
    }
}

#[test]
fn device_that_refuses_to_start_needs_reset_and_says_so() {
    let mut setup = Setup::new().configured();
    setup.device().refuse = true;

    assert_eq!(setup.driver.driver_ok(), 0x4f);

    assert_eq!(setup.edges(), 1);
    assert_eq!(setup.driver.take_interrupt(), 2);
    assert!(!setup.transport().is_active());
    assert_eq!(setup.transport().stats().activations_failed, 1);
}

#[test]
fn device_that_refused_starts_after_reset() {
    let mut setup = Setup::new().configured();
    setup.device().refuse = true;
    setup.driver.driver_ok();
    setup.device().refuse = false;

    setup.start();

    assert_eq!(setup.worker().number, 1);
    assert_eq!(setup.host().calls, ["connect", "stop", "connect", "start"]);
}

#[test]
fn host_that_refuses_to_start_gives_the_worker_back_to_the_device() {
    let host = TestHost {
        refuse_start: true,
        ..TestHost::default()
    };
    let mut setup = Setup::with_host(host).configured();

    assert_eq!(setup.driver.driver_ok(), 0x4f);

    assert_eq!(setup.device().returned, [1]);
    assert_eq!(setup.driver.take_interrupt(), 2);
    setup.host().refuse_start = false;
    setup.start();
    assert_eq!(setup.worker().number, 2);
}

#[test]
fn host_that_cannot_connect_the_interrupt_leaves_the_status_to_read() {
    let host = TestHost {
        refuse_interrupt: true,
        ..TestHost::default()
    };
    let mut setup = Setup::with_host(host).configured();

    assert_eq!(setup.driver.driver_ok(), 0x4f);

    assert_eq!(setup.driver.read(reg::INTERRUPT_STATUS), 2);
    assert_eq!(setup.device().activations, 0);
    setup.host().refuse_interrupt = false;
    setup.start();
    assert_eq!(setup.worker().number, 1);
}

#[test]
fn needs_reset_of_a_running_device_shows_in_the_status_until_reset() {
    let mut setup = Setup::started();

    setup.worker().interrupt.needs_reset();

    assert_eq!(setup.driver.status(), 0x4f);
    assert_eq!(setup.driver.take_interrupt(), 2);
    setup.driver.write(reg::STATUS, 0x0f);
    assert_eq!(setup.driver.status(), 0x4f, "the bit is the device's");
    setup.start();
    assert_eq!(setup.driver.status(), 0x0f);
}

#[test]
fn worker_that_does_not_come_back_takes_the_device_out_of_use() {
    let mut setup = Setup::started();
    setup.host().lose_worker = true;

    setup.driver.reset();

    assert_eq!(setup.driver.status(), status::FAILED);
    setup.driver.reset();
    assert_eq!(setup.driver.status(), status::FAILED);
    setup.driver.write(reg::STATUS, 1);
    assert_eq!(setup.driver.status(), status::FAILED);
}

#[test]
fn features_not_offered_are_refused_and_may_be_tried_again() {
    let mut setup = Setup::new();
    setup.driver.add_status(status::ACKNOWLEDGE);
    setup.driver.add_status(status::DRIVER);

    for wrong in [0, FEATURES, 1 << 32 | 1 << 1, 1 << 32 | 1 << 34, u64::MAX] {
        setup.driver.set_driver_features(wrong);
        assert_eq!(setup.driver.add_status(status::FEATURES_OK), 3, "{wrong:#x}");
    }
    setup.driver.set_driver_features(1 << 32 | 1);

    assert_eq!(setup.driver.add_status(status::FEATURES_OK), 0xb);
    assert_eq!(setup.transport().stats().features_rejected, 5);
}

#[test]
fn features_written_after_features_ok_change_nothing() {
    let mut setup = Setup::new().configured();

    setup.driver.set_driver_features(u64::MAX);
    setup.driver.driver_ok();

    assert_eq!(setup.worker().features, FEATURES | 1 << 32);
}

#[test]
fn features_written_before_driver_change_nothing() {
    let mut setup = Setup::new();
    setup.driver.set_driver_features(u64::MAX);
    setup.driver.add_status(status::ACKNOWLEDGE);
    setup.driver.set_driver_features(u64::MAX);
    setup.driver.add_status(status::DRIVER);

    assert_eq!(
        setup.driver.add_status(status::FEATURES_OK),
        3,
        "nothing was accepted, not even VERSION_1"
    );
}
