//! Lists of operations against a naive model.

use proptest::prelude::*;

use super::super::*;
use super::{low_half, messages, read, write};

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
        self.unmasked.then(|| self.delivered()).flatten()
    }

    fn route(&self) -> Option<Message> {
        let active = self.unmasked || self.remote_irr;
        active.then(|| self.delivered()).flatten()
    }

    fn delivered(&self) -> Option<Message> {
        let delivered = match self.mode {
            0 | 1 => self.vector > 15,
            2 | 4 | 5 => true,
            _ => false,
        };
        delivered.then(|| Message {
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
            let before: Vec<_> = naive.iter().map(NaivePin::route).collect();
            carry_out(&mut io_apic, operation);
            let sent = carry_out_naively(&mut naive, operation);
            prop_assert_eq!(messages(&mut io_apic), sent, "{:?}", operation);
            let routes: Vec<_> = naive.iter().map(NaivePin::route).collect();
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
