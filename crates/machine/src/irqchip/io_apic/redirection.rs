//! One entry of the redirection table: what an interrupt at a pin becomes.

const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 7 << 8;
const LOGICAL_DESTINATION: u64 = 1 << 11;
const ACTIVE_LOW: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const DESTINATION: u64 = 0xff << 56;

/// What the driver may set. The delivery status (bit 12) reads as 0, since a message is delivered at once, and the rest is
/// reserved.
const WRITABLE: u64 = VECTOR | DELIVERY_MODE | LOGICAL_DESTINATION | ACTIVE_LOW | LEVEL | MASKED | DESTINATION;
const LOW_HALF: u64 = 0xffff_ffff;

/// Vectors below are the processor's exceptions; a local APIC refuses them (Intel SDM 3A, 12.5.2).
const FIRST_VECTOR: u32 = 0x10;
const FIXED: u32 = 0;
const LOWEST_PRIORITY: u32 = 1;
const SMI: u32 = 2;
const NMI: u32 = 4;
const INIT: u32 = 5;

/// The address of a message to local APIC 0, physical destination (Intel SDM 3A, 12.11.1).
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
const MESSAGE_LOGICAL: u32 = 1 << 2;
const MESSAGE_ASSERT: u32 = 1 << 14;
const MESSAGE_LEVEL: u32 = 1 << 15;

/// An interrupt message to the local APICs (MSI): a 32-bit store of `data` at `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u32,
    pub(crate) data: u32,
}

/// One entry of the redirection table. After reset it is masked.
#[derive(Clone, Copy)]
pub(super) struct Redirection(u64);

impl Default for Redirection {
    fn default() -> Self {
        Self(MASKED)
    }
}

impl Redirection {
    /// Bits 31 to 0.
    pub(super) fn low(self) -> u32 {
        u32::try_from(self.0 & LOW_HALF).unwrap_or_default()
    }

    /// Bits 63 to 32.
    pub(super) fn high(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    pub(super) fn set_low(&mut self, value: u32) {
        self.set(self.0 & !LOW_HALF | u64::from(value));
    }

    pub(super) fn set_high(&mut self, value: u32) {
        self.set(self.0 & LOW_HALF | u64::from(value) << 32);
    }

    /// Edges need no acknowledgement, so the remote IRR does not outlive a change to them.
    fn set(&mut self, wanted: u64) {
        let kept = if wanted & LEVEL == 0 { 0 } else { self.0 & REMOTE_IRR };
        self.0 = wanted & WRITABLE | kept;
    }

    pub(super) fn is_masked(self) -> bool {
        self.0 & MASKED != 0
    }

    pub(super) fn is_level(self) -> bool {
        self.0 & LEVEL != 0
    }

    /// Whether a level-triggered interrupt was sent and its end has not come yet.
    pub(super) fn is_in_service(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    pub(super) fn set_in_service(&mut self, in_service: bool) {
        self.0 = self.0 & !REMOTE_IRR | if in_service { REMOTE_IRR } else { 0 };
    }

    pub(super) fn vector(self) -> u8 {
        self.low().to_le_bytes()[0]
    }

    /// What is sent for an interrupt; `None` when it is masked, or nothing that a local APIC takes.
    pub(super) fn message(self) -> Option<Message> {
        self.unmasked_message().filter(|_| !self.is_masked())
    }

    /// The message of an interrupt that may be on its way: one that was sent before the entry was masked is not at its end yet.
    pub(super) fn route(self) -> Option<Message> {
        self.unmasked_message()
            .filter(|_| !self.is_masked() || self.is_in_service())
    }

    /// `None` when it is nothing that a local APIC takes. ExtINT is of that kind: it asks a PIC for the vector, and there is
    /// none.
    fn unmasked_message(self) -> Option<Message> {
        let vector = u32::from(self.vector());
        let mode = self.low() >> 8 & 7;
        let is_taken = match mode {
            FIXED | LOWEST_PRIORITY => vector >= FIRST_VECTOR,
            SMI | NMI | INIT => true,
            _ => false,
        };
        if !is_taken {
            return None;
        }
        let logical = if self.0 & LOGICAL_DESTINATION != 0 {
            MESSAGE_LOGICAL
        } else {
            0
        };
        let trigger = if self.is_level() {
            MESSAGE_LEVEL | MESSAGE_ASSERT
        } else {
            0
        };
        Some(Message {
            address: MESSAGE_ADDRESS | self.high() >> 24 << 12 | logical,
            data: vector | mode << 8 | trigger,
        })
    }
}
