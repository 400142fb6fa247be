//! The register model's behaviours by name. `naive` compares it with another one.

mod naive;

use super::*;

const PINS: u32 = 24;

/// Low halves of entries.
const EDGE: u32 = 0;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

fn write(io_apic: &mut IoApic, register: u8, value: u32) {
    io_apic.write(0x00, &u32::from(register).to_le_bytes());
    io_apic.write(0x10, &value.to_le_bytes());
}

fn read(io_apic: &mut IoApic, register: u8) -> u32 {
    let mut data = [0; 4];
    io_apic.write(0x00, &u32::from(register).to_le_bytes());
    io_apic.read(0x10, &mut data);
    u32::from_le_bytes(data)
}

fn low_half(pin: u8) -> u8 {
    0x10 + 2 * pin
}

fn messages(io_apic: &mut IoApic) -> Vec<Message> {
    std::iter::from_fn(|| io_apic.next_message()).collect()
}

/// The data of the messages that raising and lowering a line gives.
fn pulse(io_apic: &mut IoApic, pin: u32) -> Vec<u32> {
    io_apic.set_line(pin, true);
    let mut sent = messages(io_apic);
    io_apic.set_line(pin, false);
    sent.extend(messages(io_apic));
    sent.iter().map(|message| message.data).collect()
}

#[test]
fn registers_after_reset_show_version_and_masked_pins() {
    for (pins, version) in [(24, 0x0017_0020), (120, 0x0077_0020), (1, 0x20), (500, 0x0077_0020)] {
        let mut io_apic = IoApic::new(pins);
        assert_eq!([0, 1, 2].map(|register| read(&mut io_apic, register)), [0, version, 0]);
        let last = low_half(u8::try_from(pins.min(120) - 1).unwrap());
        assert_eq!([0x10, last].map(|register| read(&mut io_apic, register)), [MASKED; 2]);
        assert_eq!(read(&mut io_apic, 0x11), 0);
        assert!(io_apic.routes().next().is_none() && !io_apic.has_unmasked(0));
    }
}

#[test]
fn identity_takes_four_bits_and_version_and_arbitration_none() {
    let mut io_apic = IoApic::new(PINS);
    for register in [0, 1, 2] {
        write(&mut io_apic, register, 0xf5ff_ffff);
    }
    assert_eq!(
        [0, 1, 2].map(|register| read(&mut io_apic, register)),
        [0x0500_0000, 0x0017_0020, 0x0500_0000]
    );
}

#[test]
fn entry_keeps_what_a_driver_may_set() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, 0x10, u32::MAX);
    write(&mut io_apic, 0x11, u32::MAX);
    assert_eq!(
        read(&mut io_apic, 0x10),
        0x0001_afff,
        "without delivery status, remote IRR and reserved bits"
    );
    assert_eq!(read(&mut io_apic, 0x11), 0xff00_0000);
}

#[test]
fn entries_become_messages_by_the_table() {
    let table = [
        (0x0000_0000, 0x31, Some((0xfee0_0000, 0x31))),
        (0x0500_0000, 0x31, Some((0xfee0_5000, 0x31))),
        (0xff00_0000, 0x831, Some((0xfeef_f004, 0x31))),
        (0x0100_0000, 0x131, Some((0xfee0_1000, 0x131))),
        (0x0100_0000, LEVEL | 0x31, Some((0xfee0_1000, 0xc031))),
        (0x0100_0000, 0x2031, Some((0xfee0_1000, 0x31))),
        (0x0000_0000, 0x200, Some((0xfee0_0000, 0x200))),
        (0x0000_0000, 0x400, Some((0xfee0_0000, 0x400))),
        (0x0000_0000, 0x500, Some((0xfee0_0000, 0x500))),
        (0x0000_0000, MASKED | 0x31, None),
        (0x0000_0000, 0x0f, None),
        (0x0000_0000, 0x10f, None),
        (0x0000_0000, 0x331, None),
        (0x0000_0000, 0x631, None),
        (0x0000_0000, 0x731, None),
    ];
    for (high, low, expected) in table {
        let mut io_apic = IoApic::new(PINS);
        write(&mut io_apic, 0x11 + 2 * 7, high);
        write(&mut io_apic, low_half(7), low);
        let expected: Vec<_> = expected
            .map(|(address, data)| (7, Message { address, data }))
            .into_iter()
            .collect();
        assert_eq!(io_apic.routes().collect::<Vec<_>>(), expected, "{high:#x} {low:#x}");
    }
}

/// The kernel masks every pin at boot, and programs each of its devices' once.
#[test]
fn routes_change_once_for_each_pin_that_a_kernel_programs() {
    let mut io_apic = IoApic::new(120);
    let mut changes = 0;
    let mut set = |io_apic: &mut IoApic, register, value| {
        write(io_apic, register, value);
        changes += u32::from(io_apic.take_routes_changed());
    };
    for pin in 0..120 {
        set(&mut io_apic, low_half(pin), MASKED);
        set(&mut io_apic, low_half(pin) + 1, 0);
    }
    for pin in 5..35 {
        set(&mut io_apic, low_half(pin) + 1, 0x0100_0000);
        set(&mut io_apic, low_half(pin), 0x30 + u32::from(pin));
        set(&mut io_apic, low_half(pin), 0x30 + u32::from(pin));
    }
    assert_eq!((changes, io_apic.routes().count()), (30, 30));
}

#[test]
fn edge_is_one_message_for_each_time_the_line_is_raised() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, low_half(4), EDGE | 0x41);
    assert_eq!(pulse(&mut io_apic, 4), [0x41]);
    assert_eq!(pulse(&mut io_apic, 4), [0x41]);
    io_apic.set_line(4, true);
    io_apic.set_line(4, true);
    assert_eq!(messages(&mut io_apic).len(), 1);
}

#[test]
fn edge_at_a_masked_pin_is_lost() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, low_half(4), MASKED | 0x41);
    io_apic.set_line(4, true);
    write(&mut io_apic, low_half(4), 0x41);
    assert_eq!(messages(&mut io_apic), []);
}

#[test]
fn level_sends_again_only_after_its_end_and_while_the_line_is_up() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, low_half(9), LEVEL | 0x51);
    io_apic.set_line(9, true);
    assert_eq!(messages(&mut io_apic).len(), 1);
    assert_eq!(read(&mut io_apic, low_half(9)), LEVEL | REMOTE_IRR | 0x51);
    io_apic.set_line(9, false);
    io_apic.set_line(9, true);
    assert_eq!(messages(&mut io_apic), [], "not before the end");
    io_apic.end_of_interrupt(0x52);
    assert_eq!(messages(&mut io_apic), [], "the end of another");
    io_apic.end_of_interrupt(0x51);
    assert_eq!(messages(&mut io_apic).len(), 1, "the line is up still");
    io_apic.set_line(9, false);
    io_apic.write(0x40, &[0x51, 0, 0, 0]);
    assert_eq!(messages(&mut io_apic), [], "the line is down");
    assert_eq!(read(&mut io_apic, low_half(9)), LEVEL | 0x51);
}

#[test]
fn level_at_a_masked_pin_waits_for_its_unmasking() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, low_half(9), LEVEL | MASKED | 0x51);
    io_apic.set_line(9, true);
    assert_eq!(messages(&mut io_apic), []);
    write(&mut io_apic, low_half(9), LEVEL | 0x51);
    assert_eq!(messages(&mut io_apic).len(), 1);
}

#[test]
fn change_to_edges_clears_the_remote_irr() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, low_half(9), LEVEL | 0x51);
    assert_eq!(pulse(&mut io_apic, 9).len(), 1);
    write(&mut io_apic, low_half(9), MASKED | 0x51);
    write(&mut io_apic, low_half(9), LEVEL | 0x51);
    assert_eq!(read(&mut io_apic, low_half(9)), LEVEL | 0x51);
    assert_eq!(pulse(&mut io_apic, 9).len(), 1);
}

#[test]
fn one_end_serves_all_pins_of_its_vector() {
    let mut io_apic = IoApic::new(PINS);
    for pin in [9, 11] {
        write(&mut io_apic, low_half(pin), LEVEL | 0x51);
        io_apic.set_line(pin.into(), true);
    }
    assert_eq!(messages(&mut io_apic).len(), 2);
    io_apic.end_of_interrupt(0x51);
    assert_eq!(messages(&mut io_apic).len(), 2);
}

#[test]
fn accesses_of_other_widths_and_places_do_nothing_and_are_counted() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, low_half(3), 0x41);
    let mut expected = 0;
    for offset in (0..0x1000).chain([u64::MAX]) {
        for len in [0, 1, 2, 3, 4, 8, 64] {
            let register = [0x00, 0x10].contains(&offset) && len == 4;
            let acknowledges = offset == 0x40 && len == 4;
            let mut data = vec![0; len];
            io_apic.read(offset, &mut data);
            if !register {
                assert_eq!(data, vec![0xff; len], "{offset:#x}");
                io_apic.write(offset, &vec![0xa5; len]);
                expected += 2 - u64::from(acknowledges);
            }
        }
    }
    assert_eq!(io_apic.refused(), expected);
    assert_eq!(read(&mut io_apic, low_half(3)), 0x41);
}

#[test]
fn registers_and_pins_beyond_the_last_are_not_there() {
    let mut io_apic = IoApic::new(PINS);
    for register in (3..0x10).chain(0x10 + 48..=0xff) {
        write(&mut io_apic, register, 0x41);
        assert_eq!(read(&mut io_apic, register), u32::MAX, "{register:#x}");
    }
    for pin in [24, 120, u32::MAX] {
        assert!(pulse(&mut io_apic, pin).is_empty());
    }
    assert!(!io_apic.take_routes_changed());
}

#[test]
fn io_apic_of_no_pins_stands_every_access() {
    let mut io_apic = IoApic::new(0);
    for register in 0..=0xff {
        write(&mut io_apic, register, u32::MAX);
        read(&mut io_apic, register);
    }
    assert!(pulse(&mut io_apic, 0).is_empty());
}

/// KVM tells the ends of those vectors alone that have a route.
#[test]
fn pin_that_is_masked_before_the_end_of_its_interrupt_keeps_its_route_until_then() {
    let mut io_apic = IoApic::new(PINS);
    write(&mut io_apic, low_half(4), LEVEL | 0x44);
    let route: Vec<_> = io_apic.routes().collect();
    assert_eq!(pulse(&mut io_apic, 4), [0xc044]);
    assert!(io_apic.take_routes_changed());

    write(&mut io_apic, low_half(4), MASKED | LEVEL | 0x44);
    assert!(!io_apic.take_routes_changed());
    assert_eq!(io_apic.routes().collect::<Vec<_>>(), route);
    assert!(pulse(&mut io_apic, 4).is_empty());

    io_apic.end_of_interrupt(0x44);
    assert!(io_apic.take_routes_changed());
    assert_eq!(io_apic.routes().count(), 0);
}
