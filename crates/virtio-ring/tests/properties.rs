//! The ring against simpler ways to say the same: upstream's queue, a model of a driver, a walk over plain data.

mod common;

use std::collections::VecDeque;

use common::{device_ring, queue_at};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use test_guest::{Descriptor, Guest, SplitRing, descriptor_flags as flags};
use virtio_queue::QueueT;
use virtio_ring::{Chain, Nearby, Ring};

const SIZE: u16 = 8;

/// Failures are kept beside this file and tried first from then on.
fn config(cases: u32) -> ProptestConfig {
    let seeds = FileFailurePersistence::Direct("tests/properties.seeds");
    ProptestConfig {
        failure_persistence: Some(Box::new(seeds)),
        ..ProptestConfig::with_cases(cases)
    }
}

/// Near the wrap of the index as often as not.
fn start() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 65_500..=u16::MAX, any::<u16>()]
}

proptest! {
    #![proptest_config(config(256))]

    /// Upstream writes used.idx for each element and decides on interrupts in a second call; a batch must come to the
    /// same bytes and the same decision.
    #[test]
    fn batches_come_to_what_upstream_add_used_and_needs_notification_do(
        start in start(),
        batches in prop::collection::vec((0..=SIZE, any::<Option<i8>>(), any::<u32>()), 1..40),
    ) {
        let mut ours = Guest::new(0x10000);
        let mut driver = ours.ring(SIZE).with_event_idx().starting_at(ours.mem(), start);
        let mut device = Ring::new(queue_at(&driver, start));
        let theirs = Guest::new(0x10000);
        _ = driver.clone().starting_at(theirs.mem(), start);
        let mut oracle = queue_at(&driver, start);
        let buffer = ours.readable(b"x");
        let mut chain = Chain::new();
        for (count, event, len) in batches {
            if let Some(distance) = event {
                let event = driver.used_idx(ours.mem()).wrapping_add_signed(i16::from(distance));
                driver.set_used_event(ours.mem(), event);
                driver.set_used_event(theirs.mem(), event);
            }
            for _ in 0..count {
                driver.add(ours.mem(), &[buffer]).unwrap();
                prop_assert!(device.pop(&Nearby::new(ours.mem()), &mut chain).unwrap());
                device.push_used(&Nearby::new(ours.mem()), chain.head(), len).unwrap();
                oracle.add_used(theirs.mem(), chain.head(), len).unwrap();
            }

            let wanted = device.publish(&Nearby::new(ours.mem())).unwrap();

            prop_assert_eq!(wanted, oracle.needs_notification(theirs.mem()).unwrap());
            let used = |guest: &Guest| guest.read(driver.used_ring() + 2, 2 + 8 * usize::from(SIZE));
            prop_assert_eq!(used(&ours), used(&theirs));
            driver.poll_all_used(ours.mem());
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Offer,
    Pop,
    UndoPop,
    /// Gives back the chain at this place among those that are out.
    Push(usize, u32),
    Publish,
    Poll,
    WantInterrupts(bool),
    EnableNotification,
    Restore,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Offer),
        4 => Just(Op::Pop),
        1 => Just(Op::UndoPop),
        3 => (any::<usize>(), any::<u32>()).prop_map(|(place, len)| Op::Push(place, len)),
        2 => Just(Op::Publish),
        2 => Just(Op::Poll),
        1 => any::<bool>().prop_map(Op::WantInterrupts),
        1 => Just(Op::EnableNotification),
        1 => Just(Op::Restore),
    ]
}

/// What a driver and a device agree on, without memory.
#[derive(Default)]
struct Model {
    available: VecDeque<u16>,
    taken: Vec<u16>,
    undoable: bool,
    pushed: Vec<(u32, u32)>,
    published: VecDeque<(u32, u32)>,
    interrupts: bool,
    /// With EVENT_IDX: how many more elements until the one that the driver waits for.
    until_event: Option<usize>,
}

impl Model {
    fn publish(&mut self, event_idx: bool) -> bool {
        let count = self.pushed.len();
        self.published.extend(self.pushed.drain(..));
        if !event_idx {
            return count > 0 && self.interrupts;
        }
        match self.until_event {
            Some(left) if left < count => {
                self.until_event = None;
                true
            }
            Some(left) => {
                self.until_event = Some(left - count);
                false
            }
            None => false,
        }
    }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn any_order_of_operations_agrees_with_the_model(
        start in start(),
        event_idx in any::<bool>(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut guest = Guest::new(0x10000);
        let mut driver = guest.ring(SIZE);
        if event_idx {
            driver = driver.with_event_idx();
        }
        let mut driver = driver.starting_at(guest.mem(), start);
        let mut device = Ring::new(queue_at(&driver, start));
        let mut chain = Chain::new();
        let buffer = guest.readable(b"x");
        let mut model = Model { interrupts: true, until_event: Some(0), ..Model::default() };
        driver.want_interrupts(guest.mem(), true);
        for op in ops {
            match op {
                Op::Offer => model.available.extend(driver.add(guest.mem(), &[buffer])),
                Op::Pop => {
                    let found = device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap();
                    let expected = model.available.pop_front();
                    prop_assert_eq!(found.then(|| chain.head()), expected);
                    model.undoable |= found;
                    model.taken.extend(expected);
                }
                Op::UndoPop if model.taken.last() == Some(&chain.head()) => {
                    device.undo_pop();
                    if model.undoable {
                        model.available.extend(model.taken.pop());
                        model.available.rotate_right(1);
                        model.undoable = false;
                    }
                }
                Op::UndoPop => {}
                Op::Push(place, len) if !model.taken.is_empty() => {
                    let head = model.taken.remove(place % model.taken.len());
                    device.push_used(&Nearby::new(guest.mem()), head, len).unwrap();
                    model.pushed.push((u32::from(head), len));
                }
                Op::Push(_, len) => prop_assert!(device.push_used(&Nearby::new(guest.mem()), 0, len).is_err()),
                Op::Publish => {
                    prop_assert_eq!(device.publish(&Nearby::new(guest.mem())).unwrap(), model.publish(event_idx));
                }
                Op::Poll => {
                    let seen = driver.poll_all_used(guest.mem());
                    let seen: Vec<_> = seen.iter().map(|used| (used.id, used.len)).collect();
                    prop_assert_eq!(seen, model.published.drain(..).collect::<Vec<_>>());
                }
                Op::WantInterrupts(wanted) => {
                    // A driver asks right after it has looked: otherwise it would wait for what is there already.
                    driver.poll_all_used(guest.mem());
                    model.published.clear();
                    driver.want_interrupts(guest.mem(), wanted);
                    model.interrupts = wanted;
                    model.until_event = wanted.then_some(0);
                }
                Op::EnableNotification => {
                    let more = device.enable_notification(&Nearby::new(guest.mem())).unwrap();
                    prop_assert_eq!(more, !model.available.is_empty());
                    if !more {
                        driver.wants_kick(guest.mem());
                        if let Some(head) = driver.add(guest.mem(), &[buffer]) {
                            prop_assert!(driver.wants_kick(guest.mem()));
                            model.available.push_back(head);
                        }
                    }
                }
                Op::Restore if model.pushed.is_empty() => {
                    device = Ring::new(device.into_queue());
                    model.undoable = false;
                }
                Op::Restore => {}
            }
            prop_assert_eq!(usize::from(device.in_flight()), model.taken.len());
        }
        prop_assert_eq!(device.malformed(), 0);
    }
}

/// Two regions that touch, a gap, and one more.
const REGIONS: [(u64, usize); 3] = [(0, 0x4000), (0x4000, 0x4000), (0x9000, 0x1000)];
const TABLE: u64 = 0x2000;
const INDIRECT_TABLE: u64 = 0x3f90;
const INDIRECT_ENTRIES: u16 = 8;

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let addr = prop_oneof![
        6 => 0..0x8000_u64,
        2 => 0x7f00..0xa100_u64,
        1 => (0..0x200_u64).prop_map(|below| u64::MAX - below),
    ];
    let len = prop_oneof![1 => Just(0), 6 => 1..0x80_u32, 1 => 0x1000..0x3000_u32, 1 => any::<u32>()];
    let next = prop_oneof![8 => 0..SIZE, 1 => any::<u16>()];
    (addr, len, 0..4_u16, next).prop_map(|(addr, len, flags, next)| Descriptor { addr, len, flags, next })
}

/// Either a buffer or an indirect descriptor, mostly of the table that is there.
fn outer_descriptor() -> impl Strategy<Value = Descriptor> {
    let indirect = (descriptor(), 0..=INDIRECT_ENTRIES + 1).prop_map(|(shape, entries)| Descriptor {
        addr: INDIRECT_TABLE,
        len: u32::from(entries) * 16,
        flags: flags::INDIRECT
            | if shape.len < 0x10 {
                flags::NEXT
            } else {
                shape.flags & flags::WRITE
            },
        next: shape.next,
    });
    prop_oneof![4 => descriptor(), 1 => indirect]
}

fn inner_descriptor() -> impl Strategy<Value = Descriptor> {
    (descriptor(), prop::bool::weighted(0.02)).prop_map(|(descriptor, nested)| Descriptor {
        flags: descriptor.flags | if nested { flags::INDIRECT } else { 0 },
        ..descriptor
    })
}

fn in_memory(addr: u64, len: u32) -> bool {
    // The first two regions touch.
    let end = u128::from(addr) + u128::from(len);
    end <= 0x8000 || (addr >= 0x9000 && end <= 0xa000)
}

type Expected = Option<(Vec<(u64, u32)>, Vec<(u64, u32)>)>;

/// What the standard says about a chain, over plain slices.
fn naive_walk(outer: &[Descriptor], inner: &[Descriptor], head: u16) -> Expected {
    let (mut buffers, mut table, mut index, mut steps) = (Vec::new(), outer, head, 0);
    loop {
        let descriptor = *table.get(usize::from(index))?;
        steps += 1;
        let nested = table.as_ptr() != outer.as_ptr();
        if descriptor.flags & flags::INDIRECT != 0 {
            let entries = usize::try_from(descriptor.len / 16).unwrap();
            if nested || descriptor.flags & flags::NEXT != 0 || entries == 0 {
                return None;
            }
            (table, index, steps) = (inner.get(..entries)?, 0, 0);
            continue;
        }
        buffers.push(descriptor);
        if descriptor.flags & flags::NEXT == 0 {
            break;
        }
        if steps >= table.len() {
            return None;
        }
        index = descriptor.next;
    }
    // An empty descriptor is no buffer: it may be anywhere and orders nothing.
    buffers.retain(|descriptor| descriptor.len > 0);
    let is_writable = |descriptor: &&Descriptor| descriptor.flags & flags::WRITE != 0;
    let ordered = buffers.is_sorted_by_key(|descriptor| is_writable(&descriptor));
    let inside = buffers
        .iter()
        .all(|descriptor| in_memory(descriptor.addr, descriptor.len));
    let pick = |writable: bool| -> Vec<(u64, u32)> {
        let wanted = buffers.iter().filter(|descriptor| is_writable(descriptor) == writable);
        wanted.map(|descriptor| (descriptor.addr, descriptor.len)).collect()
    };
    (ordered && inside).then(|| (pick(false), pick(true)))
}

fn plain(segments: &[virtio_ring::Segment]) -> Vec<(u64, u32)> {
    segments.iter().map(|&(addr, len)| (addr.0, len)).collect()
}

proptest! {
    #![proptest_config(config(2048))]

    #[test]
    fn pop_of_any_table_agrees_with_the_naive_walk(
        outer in prop::collection::vec(outer_descriptor(), usize::from(SIZE)),
        inner in prop::collection::vec(inner_descriptor(), usize::from(INDIRECT_ENTRIES) + 1),
        head in 0..SIZE,
    ) {
        let guest = Guest::with_regions(&REGIONS);
        let mut driver = SplitRing::at(TABLE, 0x1000, 0x1800, SIZE);
        for (index, descriptor) in (0..).zip(&outer) {
            driver.set_descriptor(guest.mem(), index, *descriptor);
        }
        for (index, descriptor) in (0..).zip(&inner) {
            descriptor.write_to(guest.mem(), INDIRECT_TABLE + 16 * index);
        }
        driver.offer_head(guest.mem(), head);
        let mut device = device_ring(&driver);
        let mut chain = Chain::new();

        let found = device.pop(&Nearby::new(guest.mem()), &mut chain).unwrap();

        let seen = found.then(|| (plain(chain.readable_segments()), plain(chain.writable_segments())));
        prop_assert_eq!(&seen, &naive_walk(&outer, &inner, head));
        prop_assert_eq!(device.malformed(), u64::from(seen.is_none()));
        if seen.is_none() {
            device.publish(&Nearby::new(guest.mem())).unwrap();
            let returned = driver.used_element(guest.mem(), 0);
            prop_assert_eq!((returned.id, returned.len), (u32::from(head), 0));
        }
    }

    #[test]
    fn ring_memory_of_random_bytes_never_panics_and_never_spins(
        bytes in prop::collection::vec(any::<u8>(), 0x300),
        idx in 0..12_u16,
        event_idx in any::<bool>(),
    ) {
        let guest = Guest::with_regions(&REGIONS);
        let mut driver = SplitRing::new(0x3f00, SIZE);
        if event_idx {
            driver = driver.with_event_idx();
        }
        guest.write(0x3f00, &bytes);
        driver.set_avail_idx(guest.mem(), idx);
        let mut device = device_ring(&driver);
        let mut chain = Chain::new();
        let mut taken = 0;
        while let Ok(true) = device.pop(&Nearby::new(guest.mem()), &mut chain) {
            for &(addr, len) in chain.readable_segments().iter().chain(chain.writable_segments()) {
                prop_assert!(in_memory(addr.0, len));
            }
            device.push_used(&Nearby::new(guest.mem()), chain.head(), 1).unwrap();
            taken += 1;
            prop_assert!(taken <= SIZE);
        }
        device.publish(&Nearby::new(guest.mem())).unwrap();
        _ = device.enable_notification(&Nearby::new(guest.mem()));
    }
}
