//! Interrupts on this host's KVM, with either irqchip: a guest of a few instructions programs the IO-APIC, provokes the
//! keyboard's interrupts, and resets the machine when its handler has counted three. It faults when they do not come.
#![cfg(feature = "kvm")]

mod common;

use common::{Code, Guest, kvm_is_there};
use machine::{Exit, IrqchipChoice, Spec};

/// The pin of the keyboard.
const PIN: u32 = 1;
const VECTOR: u32 = 0x41;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

/// Where the guest has its interrupt descriptor table, and what `lidt` reads.
const IDT: u32 = 0x2000;
const IDT_POINTER: u32 = 0x1ff0;
/// How many interrupts the handler has seen.
const COUNTER: u32 = 0x3000;
/// Where the code is entered; the handler lies a page above.
const LOAD: u32 = 0x10_0000;
const HANDLER: u32 = LOAD + 0x1000;

const IO_APIC_SELECT: u32 = 0xfec0_0000;
const IO_APIC_WINDOW: u32 = 0xfec0_0010;
const LOCAL_APIC_SPURIOUS: u32 = 0xfee0_00f0;
const LOCAL_APIC_END_OF_INTERRUPT: u32 = 0xfee0_00b0;

/// What a guest does about the keyboard's interrupts.
trait Interrupts {
    fn program(self, half: u32, value: u32) -> Self;
    fn provoke_interrupts(self, count: u32) -> Self;
}

impl Interrupts for Code {
    /// Writes a half of the keyboard pin's entry.
    fn program(self, half: u32, value: u32) -> Self {
        self.store(IO_APIC_SELECT, 0x10 + 2 * PIN + half)
            .store(IO_APIC_WINDOW, value)
    }

    /// Makes the keyboard answer, with an interrupt, until the handler has counted so many; faults when it does not:
    /// `mov ecx, 1000`, then `mov al, 0xf4; out 0x60, al; cmp dword [counter], count; jae +4; loop -18; ud2`. An interrupt
    /// may come some instructions late, and so may its end.
    fn provoke_interrupts(self, count: u32) -> Self {
        self.bytes(&[0xb9])
            .bytes(&1000_u32.to_le_bytes())
            .out(0x60, 0xf4)
            .bytes(&[0x81, 0x3d])
            .bytes(&COUNTER.to_le_bytes())
            .bytes(&count.to_le_bytes())
            .bytes(&[0x73, 0x04, 0xe2, 0xee, 0x0f, 0x0b])
    }
}

/// A guest that programs the pin to this, and whose handler ends an interrupt so.
fn guest(entry: u32, end: impl Fn(Code) -> Code) -> Vec<u8> {
    let gate = IDT + 8 * VECTOR;
    let set_up = Code::default()
        .bytes(&[0xbc])
        .bytes(&0x8ff0_u32.to_le_bytes()) // mov esp, 0x8ff0
        .out(0x21, 0xff) // Where there is a PIC, the line leads to it too.
        .store(COUNTER, 0)
        .store(gate, 8 << 16 | HANDLER & 0xffff)
        .store(gate + 4, HANDLER & 0xffff_0000 | 0x8e00)
        .store(IDT_POINTER, IDT << 16 | 0x7ff)
        .store(IDT_POINTER + 4, IDT >> 16)
        .bytes(&[0x0f, 0x01, 0x1d])
        .bytes(&IDT_POINTER.to_le_bytes()) // lidt [IDT_POINTER]
        .store(LOCAL_APIC_SPURIOUS, 0x1ff)
        .program(1, 0)
        .program(0, entry)
        .bytes(&[0xfb]); // sti
    let main = set_up.provoke_interrupts(3).reset();
    let count = Code::default().bytes(&[0xff, 0x05]).bytes(&COUNTER.to_le_bytes()); // inc dword [COUNTER]
    let handler = end(count)
        // In place of `iret`, which a KVM that emulates may not know: pop eax; add esp, 8; sti; jmp eax
        .bytes(&[0x58, 0x83, 0xc4, 0x08, 0xfb, 0xff, 0xe0]);
    let mut code = main.0;
    code.resize(0x1000, 0x90);
    code.extend(handler.0);
    code
}

fn end_of_interrupt(code: Code) -> Code {
    code.store(LOCAL_APIC_END_OF_INTERRUPT, 0)
}

/// How a guest ends that programs the pin to `entry`, with either irqchip.
fn expect(entry: u32, expected: impl Fn(&Exit) -> bool) {
    expect_with(&guest(entry, end_of_interrupt), expected);
}

fn expect_with(code: &[u8], expected: impl Fn(&Exit) -> bool) {
    for irqchip in [IrqchipChoice::Split, IrqchipChoice::InKernel] {
        let guest = Guest::new(code);
        let spec = Spec {
            irqchip,
            ..guest.spec()
        };
        let exit = guest.build_as(&spec).run().unwrap();
        assert!(expected(&exit), "{irqchip:?}: {exit:?}");
    }
}

#[test]
fn edges_reach_their_handler() {
    if kvm_is_there("edges_reach_their_handler") {
        expect(VECTOR, |exit| *exit == Exit::Reset);
    }
}

/// The second one comes only when the end of the first was seen.
#[test]
fn levels_reach_their_handler_again_after_each_end() {
    if kvm_is_there("levels_reach_their_handler_again_after_each_end") {
        expect(LEVEL | VECTOR, |exit| *exit == Exit::Reset);
    }
}

/// As Linux does it whose handler of a level-triggered interrupt runs in a thread.
#[test]
fn levels_reach_their_handler_again_after_an_end_while_masked() {
    if kvm_is_there("levels_reach_their_handler_again_after_an_end_while_masked") {
        let masked = |code: Code| code.program(0, MASKED | LEVEL | VECTOR);
        let end = |code| end_of_interrupt(masked(code)).program(0, LEVEL | VECTOR);
        expect_with(&guest(LEVEL | VECTOR, end), |exit| *exit == Exit::Reset);
    }
}

#[test]
fn interrupts_at_a_masked_pin_do_not_come() {
    if kvm_is_there("interrupts_at_a_masked_pin_do_not_come") {
        expect(MASKED | VECTOR, |exit| matches!(exit, Exit::Fault(_)));
    }
}
