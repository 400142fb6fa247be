//! Taking chains, giving them back, and who tells whom.

mod common;

use std::sync::Arc;

use common::{Pair, device_ring, queue_at};
use test_guest::{Buffer, Guest, SplitRing};
use virtio_queue::{Queue, QueueT};
use virtio_ring::{Chain, Nearby, Ring, RingError};

#[test]
fn pop_returns_chains_in_the_order_of_the_available_ring() {
    let mut pair = Pair::new(4);
    let offered = [pair.offer(), pair.offer(), pair.offer()];

    let taken = [pair.pop(), pair.pop(), pair.pop()];

    assert_eq!(taken, offered.map(Some));
    assert_eq!(pair.pop(), None);
    assert_eq!(pair.device.in_flight(), 3);
}

#[test]
fn undo_pop_makes_the_same_chain_come_next_and_only_once() {
    let mut pair = Pair::new(4);
    let offered = [pair.offer(), pair.offer()];
    pair.pop().unwrap();
    pair.pop().unwrap();

    pair.device.undo_pop();
    pair.device.undo_pop();

    assert_eq!(pair.pop(), Some(offered[1]));
    assert_eq!(pair.pop(), None);
}

#[test]
fn undo_pop_before_any_pop_does_nothing() {
    let mut pair = Pair::new(4);
    let head = pair.offer();

    pair.device.undo_pop();

    assert_eq!(pair.pop(), Some(head));
}

#[test]
fn undo_pop_after_a_malformed_chain_was_given_back_does_nothing() {
    let mut pair = Pair::new(4);
    let head = pair.offer();
    let wrong = pair
        .driver
        .add(pair.guest.mem(), &[Buffer::readable(u64::MAX, 9)])
        .unwrap();
    pair.pop().unwrap();
    assert_eq!(pair.pop(), None);

    pair.device.undo_pop();

    assert_eq!(pair.pop(), None);
    assert_eq!(pair.device.in_flight(), 1);
    pair.push(head, 3);
    pair.publish();
    assert_eq!(pair.used(), [(u32::from(wrong), 0), (u32::from(head), 3)]);
}

#[test]
fn pushed_elements_are_hidden_until_publish_shows_them_together() {
    let mut pair = Pair::new(4);
    let heads = [pair.offer(), pair.offer()];
    pair.pop().unwrap();
    pair.pop().unwrap();

    pair.push(heads[1], 11);
    pair.push(heads[0], 22);
    assert_eq!(pair.used(), []);
    assert!(pair.publish());

    assert_eq!(pair.used(), [(u32::from(heads[1]), 11), (u32::from(heads[0]), 22)]);
    assert_eq!(pair.device.in_flight(), 0);
}

#[test]
fn publish_with_nothing_pushed_wants_no_interrupt() {
    let mut pair = Pair::new(4);
    pair.offer();
    pair.pop().unwrap();

    assert!(!pair.publish());
}

#[test]
fn push_used_with_nothing_out_is_refused_and_writes_nothing() {
    let mut pair = Pair::new(4);
    let head = pair.offer();

    let refused = pair.device.push_used(&Nearby::new(pair.guest.mem()), head, 0);

    assert!(matches!(refused, Err(RingError::NotPopped { .. })));
    assert!(!pair.publish());
    assert!(
        pair.device.is_ready(),
        "a defect of the device does not stop the driver's ring"
    );
}

#[test]
fn publish_with_no_interrupt_flag_wants_none() {
    let mut pair = Pair::new(4);

    pair.driver.want_interrupts(pair.guest.mem(), false);
    assert!(!pair.round_trip());
    pair.driver.want_interrupts(pair.guest.mem(), true);
    assert!(pair.round_trip());
}

#[test]
fn publish_with_event_idx_ignores_the_flag() {
    let mut pair = Pair::with_event_idx(4);
    pair.driver.set_avail_flags(pair.guest.mem(), 1);

    assert!(pair.round_trip());
}

#[test]
fn publish_with_event_idx_interrupts_when_used_idx_passes_the_event() {
    let mut pair = Pair::with_event_idx(8);
    pair.driver.set_used_event(pair.guest.mem(), 2);

    let interrupts: Vec<bool> = (0..6).map(|_| pair.round_trip()).collect();

    assert_eq!(interrupts, [false, false, true, false, false, false]);
}

#[test]
fn publish_of_a_batch_that_covers_the_event_interrupts_once() {
    let mut pair = Pair::with_event_idx(8);
    pair.driver.set_used_event(pair.guest.mem(), 2);
    for _ in 0..5 {
        pair.offer();
    }
    while let Some(head) = pair.pop() {
        pair.push(head, 0);
    }

    assert!(pair.publish());
    assert!(!pair.publish());
}

#[test]
fn disabled_notifications_stop_kicks_until_enabled() {
    let mut pair = Pair::new(4);

    pair.device
        .disable_notification(&Nearby::new(pair.guest.mem()))
        .unwrap();
    pair.offer();
    assert!(!pair.driver.wants_kick(pair.guest.mem()));
    assert!(
        pair.device.enable_notification(&Nearby::new(pair.guest.mem())).unwrap(),
        "one came meanwhile"
    );
    pair.offer();
    assert!(pair.driver.wants_kick(pair.guest.mem()));
}

#[test]
fn enable_notification_with_event_idx_asks_for_the_next_chain_only() {
    let mut pair = Pair::with_event_idx(8);
    pair.round_trip();
    pair.driver.wants_kick(pair.guest.mem());

    assert!(!pair.device.enable_notification(&Nearby::new(pair.guest.mem())).unwrap());

    pair.offer();
    assert!(pair.driver.wants_kick(pair.guest.mem()));
    pair.offer();
    assert!(!pair.driver.wants_kick(pair.guest.mem()));
}

#[test]
fn enable_notification_after_undo_reports_the_chain() {
    let mut pair = Pair::new(4);
    pair.offer();
    pair.pop().unwrap();
    pair.device.undo_pop();

    assert!(pair.device.enable_notification(&Nearby::new(pair.guest.mem())).unwrap());
    assert!(pair.device.has_available(&Nearby::new(pair.guest.mem())).unwrap());
}

#[test]
fn disabled_queue_is_always_empty() {
    let guest = Guest::new(0x10000);
    let mut device = Ring::new(Queue::new(16).unwrap());
    let mut chain = Chain::new();

    assert!(!device.is_ready());
    assert!(!device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap());
    assert!(!device.enable_notification(&Nearby::new(guest.mem())).unwrap());
    device.disable_notification(&Nearby::new(guest.mem())).unwrap();
    assert!(!device.publish(&Nearby::new(guest.mem())).unwrap());
    assert_eq!(guest.read(0, 0x1000), [0; 0x1000], "nothing was written to address 0");
}

#[test]
fn into_queue_and_back_goes_on_where_it_was() {
    let mut pair = Pair::new(4);
    for _ in 0..3 {
        pair.round_trip();
    }
    pair.used();
    let head = pair.offer();

    let queue = std::mem::replace(&mut pair.device, Ring::new(Queue::new(4).unwrap())).into_queue();
    assert_eq!((queue.next_avail(), queue.next_used()), (3, 3));
    pair.device = Ring::new(queue);

    assert_eq!(pair.pop(), Some(head));
    pair.push(head, 5);
    pair.publish();
    assert_eq!(pair.used(), [(u32::from(head), 5)]);
}

#[test]
fn indices_wrap_at_65536_without_a_trace() {
    let mut guest = Guest::new(0x10000);
    let mut driver = guest.ring(4).with_event_idx().starting_at(guest.mem(), 65_530);
    let mut device = Ring::new(queue_at(&driver, 65_530));
    let mut chain = Chain::new();
    let buffer = guest.readable(b"x");

    for round in 0..20 {
        driver.want_interrupts(guest.mem(), true);
        let heads = [(); 3].map(|()| driver.add(guest.mem(), &[buffer]).unwrap());
        for head in heads {
            assert!(device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap());
            assert_eq!(chain.head(), head);
            device.push_used(&Nearby::new(guest.mem()), head, round).unwrap();
        }
        assert!(device.publish(&Nearby::new(guest.mem())).unwrap(), "round {round}");
        assert_eq!(driver.poll_all_used(guest.mem()).len(), 3);
    }
}

#[test]
fn used_element_across_two_regions_is_written_whole() {
    let guest = Guest::with_regions(&[(0, 0x4000), (0x4000, 0x4000)]);
    let mut driver = SplitRing::at(0x1000, 0x2000, 0x4000 - 8, 4);
    let mut device = device_ring(&driver);
    driver.add(guest.mem(), &[Buffer::readable(0x3000, 1)]).unwrap();
    let mut chain = Chain::new();
    device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap();

    device
        .push_used(&Nearby::new(guest.mem()), chain.head(), 0x0102_0304)
        .unwrap();
    device.publish(&Nearby::new(guest.mem())).unwrap();

    let used = driver.used_element(guest.mem(), 0);
    assert_eq!((used.id, used.len), (u32::from(chain.head()), 0x0102_0304));
}

#[test]
fn rings_that_share_a_counter_go_on_counting_malformed_chains() {
    let counter = Arc::default();
    for count in 1..=2 {
        let mut pair = Pair::new(4);
        pair.device = device_ring(&pair.driver).with_malformed_counter(Arc::clone(&counter));
        pair.driver
            .add(pair.guest.mem(), &[Buffer::readable(u64::MAX, 9)])
            .unwrap();

        assert_eq!(pair.pop(), None);

        assert_eq!(pair.device.malformed(), count);
    }
}

#[test]
fn queue_of_one_works() {
    let mut pair = Pair::new(1);
    for _ in 0..3 {
        assert!(pair.round_trip());
        assert_eq!(pair.used().len(), 1);
    }
}

#[test]
fn indirect_without_negotiation_goes_back_unused() {
    let mut guest = Guest::new(0x10000);
    let mut driver: SplitRing = guest.ring(4);
    let mut device = device_ring(&driver).with_indirect(false);
    let byte = guest.readable(b"x");
    let table = guest.alloc(16, 16);
    driver.add_indirect(guest.mem(), table, &[byte]).unwrap();

    assert!(!device.pop(&Nearby::new(guest.mem()), &mut Chain::new()).unwrap());
    device.publish(&Nearby::new(guest.mem())).unwrap();

    assert_eq!(device.malformed(), 1);
    assert_eq!(driver.poll_all_used(guest.mem()).len(), 1);
}
