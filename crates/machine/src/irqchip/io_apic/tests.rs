//! The register model: named behaviours, and lists of operations against a naive model.

use proptest::prelude::*;

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

/// One field for each thing that an entry says, and messages made where they arise.
#[derive(Clone, Debug, Default)]
struct NaivePin {
    vector: u32,
    mode: u32,
    logical: bool,
    active_low: bool,
    remote_irr: bool,
    level: bool,
    unmasked: bool,
    destination: u32,
    up: bool,
}

impl NaivePin {
    fn low(&self) -> u32 {
        self.vector
            + self.mode * 0x100
            + u32::from(self.logical) * 0x800
            + u32::from(self.active_low) * 0x2000
            + u32::from(self.remote_irr) * 0x4000
            + u32::from(self.level) * 0x8000
            + u32::from(!self.unmasked) * 0x1_0000
    }

    fn set_low(&mut self, value: u32) {
        let bit = |n: u32| value / 2u32.pow(n) % 2 == 1;
        self.vector = value % 256;
        self.mode = value / 256 % 8;
        (self.logical, self.active_low) = (bit(11), bit(13));
        (self.level, self.unmasked) = (bit(15), !bit(16));
        self.remote_irr &= self.level;
    }

    fn message(&self) -> Option<Message> {
        let delivered = match self.mode {
            0 | 1 => self.vector > 15,
            2 | 4 | 5 => true,
            _ => false,
        };
        (self.unmasked && delivered).then(|| Message {
            address: 0xfee0_0000 + self.destination * 0x1000 + if self.logical { 4 } else { 0 },
            data: self.vector + self.mode * 256 + if self.level { 0xc000 } else { 0 },
        })
    }

    /// After something has changed that a level-triggered pin depends on.
    fn settle(&mut self, sent: &mut Vec<Message>) {
        if self.level
            && self.up
            && !self.remote_irr
            && let Some(message) = self.message()
        {
            self.remote_irr = true;
            sent.push(message);
        }
    }

    fn set_line(&mut self, up: bool, sent: &mut Vec<Message>) {
        let raised = up && !self.up;
        self.up = up;
        if raised && !self.level {
            sent.extend(self.message());
        }
        self.settle(sent);
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Low { pin: u8, value: u32 },
    High { pin: u8, value: u32 },
    Line { pin: u8, up: bool },
    End { vector: u8, by_register: bool },
}

const NAIVE_PINS: u8 = 3;

/// Few pins and vectors, so that they meet; one pin in four is not there.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let pin = || 0..=NAIVE_PINS;
    let vector = || prop_oneof![Just(0x0f_u8), Just(0x10), Just(0x31), Just(0x32)];
    let low = (any::<u32>(), vector(), 0..8_u32).prop_map(|(noise, vector, mode)| {
        let mode = if mode > 4 { 0 } else { mode };
        noise & !0x7ff | u32::from(vector) | mode << 8
    });
    let one = prop_oneof![
        3 => (pin(), low).prop_map(|(pin, value)| Operation::Low { pin, value }),
        1 => (pin(), any::<u32>()).prop_map(|(pin, value)| Operation::High { pin, value }),
        4 => (pin(), any::<bool>()).prop_map(|(pin, up)| Operation::Line { pin, up }),
        2 => (vector(), any::<bool>()).prop_map(|(vector, by_register)| Operation::End { vector, by_register }),
    ];
    prop::collection::vec(one, 0..60)
}

fn carry_out(io_apic: &mut IoApic, operation: &Operation) {
    match *operation {
        Operation::Low { pin, value } => write(io_apic, low_half(pin), value),
        Operation::High { pin, value } => write(io_apic, low_half(pin) + 1, value),
        Operation::Line { pin, up } => io_apic.set_line(pin.into(), up),
        Operation::End {
            vector,
            by_register: true,
        } => io_apic.write(0x40, &[vector, 1, 2, 3]),
        Operation::End { vector, .. } => io_apic.end_of_interrupt(vector),
    }
}

fn carry_out_naively(pins: &mut [NaivePin], operation: &Operation) -> Vec<Message> {
    let mut sent = Vec::new();
    match *operation {
        Operation::Low { pin, value } => {
            if let Some(pin) = pins.get_mut(usize::from(pin)) {
                pin.set_low(value);
                pin.settle(&mut sent);
            }
        }
        Operation::High { pin, value } => {
            if let Some(pin) = pins.get_mut(usize::from(pin)) {
                pin.destination = value / 0x100_0000;
            }
        }
        Operation::Line { pin, up } => {
            if let Some(pin) = pins.get_mut(usize::from(pin)) {
                pin.set_line(up, &mut sent);
            }
        }
        Operation::End { vector, .. } => {
            for pin in pins.iter_mut().filter(|pin| pin.vector == u32::from(vector)) {
                pin.remote_irr = false;
                pin.settle(&mut sent);
            }
        }
    }
    sent
}

proptest! {
    #[test]
    fn io_apic_any_operations_answers_like_the_naive_model(list in operations()) {
        let mut io_apic = IoApic::new(NAIVE_PINS.into());
        let mut naive = vec![NaivePin::default(); NAIVE_PINS.into()];
        for operation in &list {
            let before: Vec<_> = naive.iter().map(NaivePin::message).collect();
            carry_out(&mut io_apic, operation);
            let sent = carry_out_naively(&mut naive, operation);
            prop_assert_eq!(messages(&mut io_apic), sent, "{:?}", operation);
            let routes: Vec<_> = naive.iter().map(NaivePin::message).collect();
            prop_assert_eq!(io_apic.take_routes_changed(), routes != before);
            let routes: Vec<_> = (0..).zip(routes).filter_map(|(pin, route)| Some((pin, route?))).collect();
            prop_assert_eq!(io_apic.routes().collect::<Vec<_>>(), routes);
            for (pin, expected) in (0..).zip(&naive) {
                prop_assert_eq!(read(&mut io_apic, low_half(pin)), expected.low());
                prop_assert_eq!(read(&mut io_apic, low_half(pin) + 1), expected.destination << 24);
            }
            prop_assert_eq!(io_apic.has_unmasked(1), naive[1..].iter().any(|pin| pin.unmasked));
        }
    }

    /// Whatever a guest writes wherever, draining ends, and routes and messages stay in what a local APIC takes.
    #[test]
    fn io_apic_any_bytes_anywhere_gives_sound_messages(
        list in prop::collection::vec((0..0x48_u64, prop::collection::vec(any::<u8>(), 0..9), 0..130_u32), 0..100)
    ) {
        let mut io_apic = IoApic::new(120);
        for (offset, bytes, pin) in list {
            io_apic.write(offset, &bytes);
            io_apic.set_line(pin, bytes.len() % 2 == 0);
            let sent = messages(&mut io_apic);
            prop_assert!(sent.len() <= 120);
            for message in sent.into_iter().chain(io_apic.routes().map(|(_, message)| message)) {
                prop_assert_eq!(message.address & !0x000f_f004, 0xfee0_0000);
                prop_assert_eq!(message.data & !0xc7ff, 0);
            }
        }
    }
}
