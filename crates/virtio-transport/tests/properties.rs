//! Any sequence of register accesses: no panic, no device started on a queue that cannot work, no host call out of
//! order (the host asserts that).

mod common;

use std::time::Duration;

use common::{FEATURES, Setup, Shared, TestHost};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use test_guest::{Guest, register as reg};
use virtio_queue::QueueT;
use virtio_ring::Ring;
use virtio_transport::{FIRST_INTERRUPT_REGISTER, MMIO_LEN, RegisterPage};

fn config(cases: u32) -> ProptestConfig {
    let seeds = FileFailurePersistence::Direct("tests/properties.seeds");
    ProptestConfig {
        failure_persistence: Some(Box::new(seeds)),
        ..ProptestConfig::with_cases(cases)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, u32),
    WriteBytes(u64, Vec<u8>),
    Read(u64, usize),
    /// What a good driver does next, so that runs get somewhere.
    NextStatus,
    GoodFeatures,
    GoodQueue(usize),
    /// Queue, size and the three addresses, as a driver writes them.
    AnyQueue(u32, u32, [u64; 3]),
    Misbehave(u8),
    /// To a register that is the driver's memory.
    WriteMemory(u64, u32),
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..20_u32, 2 => (0..0x100_u32).prop_map(|page| page << 8), 1 => any::<u32>()]
}

/// Around the end of memory, mostly aligned.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..0x1100_u64).prop_map(|paragraph| paragraph << 4),
        1 => 0..0x1_1000_u64,
        1 => (0..0x20_u64).prop_map(|paragraph| (paragraph << 4).wrapping_neg()),
        1 => any::<u64>(),
    ]
}

fn any_queue() -> impl Strategy<Value = Op> {
    let size = prop_oneof![4 => (0..6_u32).prop_map(|exponent| 1 << exponent), 1 => 0..20_u32, 1 => any::<u32>()];
    (0..2_u32, size, prop::array::uniform3(address())).prop_map(|(queue, size, parts)| Op::AnyQueue(queue, size, parts))
}

fn op() -> impl Strategy<Value = Op> {
    let register = prop_oneof![8 => (0..0x40_u64).prop_map(|index| index * 4), 1 => any::<u64>()];
    let in_memory = prop_oneof![3 => Just(reg::STATUS / 4), 1 => FIRST_INTERRUPT_REGISTER / 4..MMIO_LEN / 4];
    prop_oneof![
        6 => (register.clone(), value()).prop_map(|(offset, value)| Op::Write(offset, value)),
        1 => (0..0x1100_u64, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(at, data)| Op::WriteBytes(at, data)),
        1 => (register, 0..9_usize).prop_map(|(offset, len)| Op::Read(offset, len)),
        8 => Just(Op::NextStatus),
        4 => Just(Op::GoodFeatures),
        2 => (0..2_usize).prop_map(Op::GoodQueue),
        4 => any_queue(),
        1 => any::<u8>().prop_map(Op::Misbehave),
        1 => (in_memory, value()).prop_map(|(index, value)| Op::WriteMemory(index * 4, value)),
    ]
}

fn apply(setup: &mut Setup, page: &Shared, op: Op) {
    match op {
        Op::Write(offset, value) => setup.driver.write(offset, value),
        Op::WriteBytes(offset, data) => setup.transport().write(offset, &data),
        Op::Read(offset, len) => setup.transport().read(offset, &mut vec![0; len]),
        Op::NextStatus => {
            let next = [1, 3, 0xb, 0xf, 0]
                .into_iter()
                .find(|&bits| bits > setup.driver.status());
            setup.driver.write(reg::STATUS, next.unwrap_or(0));
        }
        Op::GoodFeatures => setup.driver.set_driver_features(FEATURES | 1 << 32),
        Op::GoodQueue(index) => {
            let ring = setup.rings[index].clone();
            setup.driver.set_up_queue(u32::try_from(index).unwrap(), &ring);
        }
        Op::AnyQueue(queue, size, [desc, avail, used]) => {
            setup.driver.write(reg::QUEUE_SEL, queue);
            setup.driver.write(reg::QUEUE_READY, 0);
            setup.driver.write(reg::QUEUE_SIZE, size);
            setup.driver.write_address(reg::QUEUE_DESC_LOW, desc);
            setup.driver.write_address(reg::QUEUE_DRIVER_LOW, avail);
            setup.driver.write_address(reg::QUEUE_DEVICE_LOW, used);
            setup.driver.write(reg::QUEUE_READY, 1);
        }
        Op::Misbehave(how) => {
            setup.device().refuse = how & 1 != 0;
            setup.host().refuse_interrupt = how & 2 != 0;
            setup.host().refuse_start = how & 4 != 0;
        }
        Op::WriteMemory(offset, value) => page.set(offset, value),
    }
}

/// All three parts in the one region of 64 KiB, aligned as the standard asks.
fn is_sound(ring: Ring, max: u16) -> bool {
    let queue = ring.into_queue();
    let size = u64::from(queue.size());
    let inside = |addr: u64, len: u64| addr.checked_add(len).is_some_and(|end| end <= 0x10000);
    let sizes = queue.size() > 0 && queue.size() <= max && queue.size().count_ones() == 1;
    let aligned = queue.desc_table() & 15 == 0 && queue.avail_ring() & 1 == 0 && queue.used_ring() & 3 == 0;
    sizes
        && aligned
        && inside(queue.desc_table(), 16 * size)
        && inside(queue.avail_ring(), 6 + 2 * size)
        && inside(queue.used_ring(), 6 + 8 * size)
}

proptest! {
    #![proptest_config(config(1024))]

    #[test]
    fn any_register_accesses_never_panic_and_never_start_on_an_invalid_queue(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let page = Shared::new();
        let mut setup = Setup::on_page(Guest::new(0x10000), TestHost::default(), RegisterPage::new(page.clone()));
        for op in ops {
            apply(&mut setup, &page, op);
            let status = setup.driver.status();
            let running = setup.host().worker.is_some();
            prop_assert_eq!(running, setup.transport().is_active());
            prop_assert_eq!(running && status & 0x40 == 0, status == 0x0f);
            if running {
                prop_assert_eq!(setup.worker().features & !(FEATURES | 1 << 32), 0);
                let rings = std::mem::take(&mut setup.worker().rings);
                for (ring, max) in rings.into_iter().zip(common::QUEUE_SIZES) {
                    prop_assert!(!ring.is_ready() || is_sound(ring, max));
                }
            }
        }
        setup.transport().shutdown(Duration::ZERO);
        let device = setup.device();
        prop_assert_eq!(device.returned.clone(), (1..=device.activations).collect::<Vec<_>>(), "each worker came back");
    }
}
