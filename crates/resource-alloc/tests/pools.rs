//! The public face of the crate: layouts, the two pools, refusals.

use resource_alloc::{
    AllocError, DeviceResources, IrqLayout, IrqLine, IrqPool, Layout, LayoutError, MmioLayout, MmioPool, MmioRange,
    ResourceAllocator,
};

const SLOT: u64 = 0x1000;

fn all_lines(layout: &IrqLayout) -> Vec<u32> {
    let mut pool = IrqPool::new(layout);
    (0..layout.lines())
        .map(|n| pool.allocate(format!("d{n}")).expect("within the layout").0)
        .collect()
}

fn small_window() -> MmioPool {
    MmioPool::new(&MmioLayout::new(0x1_0000, 0x1_4000, SLOT).expect("four slots"))
}

fn slot(base: u64) -> MmioRange {
    MmioRange { base, len: SLOT }
}

#[test]
fn in_kernel_irqchip_all_lines_rtc_line_comes_last() {
    let lines = all_lines(&IrqLayout::x86_64_irqchip());
    let expected: Vec<u32> = (5..=7).chain(9..=23).chain([8]).collect();
    assert_eq!(lines, expected);
    assert_eq!(lines.len(), 19);
}

#[test]
fn split_irqchip_all_lines_continue_those_of_the_in_kernel_irqchip() {
    let lines = all_lines(&IrqLayout::x86_64_split_irqchip());
    let expected: Vec<u32> = all_lines(&IrqLayout::x86_64_irqchip())
        .into_iter()
        .chain(24..=119)
        .collect();
    assert_eq!(lines, expected);
    assert_eq!(lines.len(), 115);
}

#[test]
fn layout_extended_keeps_its_order_and_is_never_shortened() {
    let short = IrqLayout::new(IrqLine(5), IrqLine(8), &[IrqLine(6)]).expect("a range");
    let long = short.clone().extended_to(IrqLine(10)).expect("longer");
    assert_eq!(all_lines(&long), [5, 7, 8, 6, 9, 10]);
    let longer = long.clone().extended_to(IrqLine(11)).expect("longer");
    assert_eq!(all_lines(&longer), [5, 7, 8, 6, 9, 10, 11]);
    assert_eq!(short.clone().extended_to(IrqLine(8)), Ok(short.clone()));
    assert!(matches!(
        short.clone().extended_to(IrqLine(7)),
        Err(LayoutError::NoIrqLines { .. })
    ));
    assert!(matches!(
        short.extended_to(IrqLine(4096)),
        Err(LayoutError::IrqLineTooHigh { .. })
    ));
}

#[test]
fn aarch64_lines_and_first_slot_follow_the_memory_map() {
    let lines = all_lines(&IrqLayout::aarch64_gic());
    assert_eq!((lines.len(), lines[0], lines[191]), (192, 32, 223));
    let first = ResourceAllocator::new(&Layout::aarch64())
        .allocate_device("rtc")
        .expect("empty");
    assert_eq!(first.mmio, slot(0x0a00_2000));
}

#[test]
fn x86_64_slots_begin_at_the_gap_and_end_below_the_io_apic() {
    let layout = MmioLayout::x86_64();
    let mut pool = MmioPool::new(&layout);
    assert_eq!(pool.allocate_slot("a"), Ok(slot(0xd000_0000)));
    assert_eq!(pool.allocate_slot("b"), Ok(slot(0xd000_1000)));
    assert_eq!(pool.allocate_exact("last", slot(0xfebf_f000)), Ok(()));
    let io_apic = slot(0xfec0_0000);
    let refusal = pool.allocate_exact("above", io_apic);
    let window = layout.window();
    assert_eq!(
        refusal,
        Err(AllocError::MmioOutside {
            range: io_apic,
            asked_by: "above".into(),
            window
        })
    );
}

#[test]
fn twentieth_device_is_refused_with_the_budget_and_all_holders() {
    let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
    for n in 0..19 {
        alloc.allocate_device(format!("d{n}")).expect("19 fit");
    }
    let before = alloc.holders();
    let text = alloc.allocate_device("vsock").expect_err("20 do not").to_string();
    assert!(
        text.starts_with("19 IRQ lines, 20 asked for, held by: d0 (5), d1 (6), d2 (7), d18 (8), d3 (9)"),
        "{text}"
    );
    assert!(text.ends_with("none left for: vsock"), "{text}");
    assert_eq!(alloc.holders(), before);
}

#[test]
fn list_of_devices_that_does_not_fit_changes_nothing_and_names_the_rest() {
    let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
    alloc
        .allocate_devices((0..18).map(|n| format!("d{n}")))
        .expect("18 fit");
    let before = alloc.holders();
    let error = alloc.allocate_devices(["a", "b", "c"]).expect_err("one is left");
    let AllocError::IrqLinesExhausted {
        lines,
        asked,
        refused,
        holders,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((lines, asked, refused), (19, 21, vec!["b".to_owned(), "c".to_owned()]));
    assert_eq!(holders.len(), 19);
    assert_eq!(alloc.holders(), before);
}

#[test]
fn device_without_a_slot_gets_no_line_either() {
    let irq = IrqLayout::x86_64_irqchip();
    let mmio = MmioLayout::new(0xd000_0000, 0xd000_1000, SLOT).expect("one slot");
    let mut alloc = ResourceAllocator::new(&Layout { irq, mmio });
    alloc.allocate_device("first").expect("one fits");
    let error = alloc.allocate_device("second").expect_err("no slot");
    let text = "no 0x1000 bytes left in the MMIO window 0xd0000000+0x1000, \
                held by: first (0xd0000000+0x1000); none left for: second";
    assert_eq!(error.to_string(), text);
    assert_eq!(alloc.budget().irq_lines.allocated, 1);
    let taken = DeviceResources {
        irq: IrqLine(9),
        mmio: slot(0xd000_0000),
    };
    alloc.allocate_device_exact("third", taken).expect_err("slot is taken");
    assert_eq!(alloc.irqs().holder(IrqLine(9)), None);
}

#[test]
fn reserved_line_is_not_counted_among_those_for_devices() {
    let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
    alloc.irqs_mut().reserve("rtc", IrqLine(8)).expect("free");
    let budget = alloc.budget().irq_lines;
    assert_eq!((budget.total, budget.for_devices(), budget.free()), (19, 18, 18));
    let error = alloc
        .allocate_devices((0..19).map(|n| format!("d{n}")))
        .expect_err("18 fit");
    assert!(error.to_string().starts_with("18 IRQ lines, 19 asked for"), "{error}");
}

#[test]
fn freed_device_resources_are_the_next_ones_handed_out() {
    let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
    let given = alloc.allocate_devices(["a", "b", "c"]).expect("three fit");
    assert_eq!(alloc.free_device(given[1]), Ok("b".to_owned()));
    assert_eq!(alloc.allocate_device("d"), Ok(given[1]));
}

#[test]
fn freeing_what_two_devices_hold_is_refused_and_frees_neither() {
    let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
    let given = alloc.allocate_devices(["a", "b"]).expect("two fit");
    let mixed = DeviceResources {
        irq: given[0].irq,
        mmio: given[1].mmio,
    };
    let text = alloc.free_device(mixed).expect_err("two devices").to_string();
    assert_eq!(
        text,
        "IRQ line 5 is held by a, MMIO range 0xd0001000+0x1000 by b: not one device"
    );
    assert_eq!(alloc.budget().irq_lines.allocated, 2);
    assert_eq!(alloc.budget().mmio_slots.allocated, 2);
}

#[test]
fn freeing_twice_is_refused() {
    let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
    let device = alloc.allocate_device("a").expect("empty");
    alloc.free_device(device).expect("held");
    assert_eq!(alloc.free_device(device), Err(AllocError::IrqLineNotHeld(IrqLine(5))));
}

#[test]
fn line_asked_for_by_number_taken_or_outside_is_refused() {
    let mut pool = IrqPool::new(&IrqLayout::x86_64_irqchip());
    pool.allocate_exact("a", IrqLine(5)).expect("free");
    let text = pool.allocate_exact("b", IrqLine(5)).expect_err("taken").to_string();
    assert_eq!(text, "IRQ line 5, asked for by b, is held by a");
    let text = pool.allocate_exact("b", IrqLine(4)).expect_err("outside").to_string();
    assert_eq!(text, "IRQ line 4, asked for by b, is not one of lines 5 to 23");
    assert!(pool.reserve("b", IrqLine(24)).is_err());
}

#[test]
fn range_overlapping_from_below_or_inside_is_refused() {
    let mut pool = small_window();
    let held = MmioRange {
        base: 0x1_1000,
        len: 2 * SLOT,
    };
    pool.allocate_exact("a", held).expect("free");
    for base in [0x1_0000, 0x1_1000, 0x1_2000] {
        let range = MmioRange { base, len: 2 * SLOT };
        let refusal = pool.allocate_exact("b", range);
        assert_eq!(
            refusal,
            Err(AllocError::MmioTaken {
                range,
                asked_by: "b".into(),
                held,
                holder: "a".into()
            })
        );
    }
}

#[test]
fn range_that_wraps_the_address_space_is_refused() {
    let mut pool = small_window();
    for len in [u64::MAX - SLOT + 1, 0x8000_0000_0000_0000] {
        let range = MmioRange { base: 0x1_1000, len };
        assert!(
            matches!(pool.allocate_exact("a", range), Err(AllocError::MmioOutside { .. })),
            "{range}"
        );
    }
    assert!(matches!(
        pool.allocate("a", 0x8000_0000_0000_0000),
        Err(AllocError::MmioExhausted { .. })
    ));
}

#[test]
fn range_of_no_or_broken_slots_is_refused() {
    let mut pool = small_window();
    for len in [0, 1, SLOT - 1, SLOT + 1] {
        assert!(
            matches!(pool.allocate("a", len), Err(AllocError::MmioNotWholeSlots { .. })),
            "{len}"
        );
    }
    let askew = MmioRange {
        base: 0x1_0800,
        len: SLOT,
    };
    assert!(matches!(
        pool.reserve("a", askew),
        Err(AllocError::MmioNotWholeSlots { .. })
    ));
}

#[test]
fn long_range_after_fragmentation_takes_the_first_gap_that_holds_it() {
    let mut pool = small_window();
    let slots: Vec<MmioRange> = (0..4)
        .map(|n| pool.allocate_slot(format!("s{n}")).expect("four fit"))
        .collect();
    pool.free(slots[0]).expect("held");
    pool.free(slots[2]).expect("held");
    assert!(matches!(
        pool.allocate("long", 2 * SLOT),
        Err(AllocError::MmioExhausted { .. })
    ));
    pool.free(slots[3]).expect("held");
    assert_eq!(
        pool.allocate("long", 2 * SLOT),
        Ok(MmioRange {
            base: 0x1_2000,
            len: 2 * SLOT
        })
    );
    assert_eq!(pool.allocate_slot("short"), Ok(slots[0]));
}

#[test]
fn part_of_a_held_range_cannot_be_freed() {
    let mut pool = small_window();
    let range = pool.allocate("a", 2 * SLOT).expect("empty");
    assert_eq!(
        pool.free(slot(range.base)),
        Err(AllocError::MmioNotHeld(slot(range.base)))
    );
    assert_eq!(pool.holder(range), Some("a"));
}

#[test]
fn request_without_a_name_is_refused() {
    let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
    assert_eq!(alloc.allocate_device(""), Err(AllocError::NoName));
    assert_eq!(alloc.mmio_mut().allocate_slot(""), Err(AllocError::NoName));
    assert_eq!(alloc.budget().irq_lines.allocated, 0);
}

#[test]
fn error_text_with_very_many_holders_stays_short() {
    let mut pool = MmioPool::new(&MmioLayout::new(0, 1000 * SLOT, SLOT).expect("1000 slots"));
    for n in 0..1000 {
        pool.allocate_slot(format!("s{n}")).expect("1000 fit");
    }
    let text = pool.allocate_slot("last").expect_err("full").to_string();
    assert!(text.contains(" and 872 more; none left for: last"), "{text}");
    assert!(text.len() < 4096);
}

#[test]
fn layouts_that_are_none_are_refused() {
    let line = IrqLine;
    assert!(matches!(
        IrqLayout::new(line(6), line(5), &[]),
        Err(LayoutError::NoIrqLines { .. })
    ));
    assert!(matches!(
        IrqLayout::new(line(0), line(u32::MAX), &[]),
        Err(LayoutError::IrqLineTooHigh { .. })
    ));
    assert!(matches!(
        IrqLayout::new(line(5), line(9), &[line(10)]),
        Err(LayoutError::LastResortOutside(_))
    ));
    for (base, end, slot_len) in [
        (0, 0, SLOT),
        (SLOT, 0, SLOT),
        (0, SLOT, 0),
        (0, 0x3000, 0x3000),
        (1, SLOT, SLOT),
    ] {
        assert!(matches!(
            MmioLayout::new(base, end, slot_len),
            Err(LayoutError::NoMmioWindow { .. })
        ));
    }
}
