//! An IO-APIC (Intel 82093AA, with the EOI register of version 0x20): interrupts at pins go in, messages to the local APICs
//! come out. It owns no descriptor, thread or lock.
//!
//! A driver selects a register by writing its index at offset 0x00 and reads or writes it at 0x10. Each pin has two such
//! registers, the halves of its entry in the redirection table: which vector an interrupt at the pin becomes, for which
//! processor, and whether it is masked. A pin is *edge-triggered*: one message for each time that its line is raised; or
//! *level-triggered*: one message while the line is up, and no other until the processor has said the interrupt's end
//! (EOI), which the entry's *remote IRR* remembers.
//!
//! Contract: one input ([`write`](IoApic::write), [`set_line`](IoApic::set_line),
//! [`end_of_interrupt`](IoApic::end_of_interrupt)), then drain: when [`take_routes_changed`](IoApic::take_routes_changed)
//! says so, [`routes`](IoApic::routes) are to be carried out anew; then send what [`next_message`](IoApic::next_message)
//! gives until there is none.
//!
//! Pins whose interrupts go to the local APICs by their route, without this model seeing them (irqfds), have no remote IRR:
//! each edge of theirs is one message, level-triggered or not, and none is lost for lack of an EOI.
//!
//! An interrupt at a masked pin is lost if it is an edge, as in the 82093AA and in KVM's own IO-APIC.

mod redirection;

pub(crate) use redirection::Message;
use redirection::Redirection;

/// Offsets of the registers that a processor sees.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const END_OF_INTERRUPT: u64 = 0x40;

/// Indices of the registers behind the window.
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const TABLE: u8 = 0x10;

/// The version that has the EOI register.
const VERSION_NUMBER: u32 = 0x20;
const ID_BITS: u32 = 0x0f00_0000;
/// What is read where nothing is.
const NOTHING: u32 = u32::MAX;
/// The most pins that one byte of index reaches.
const MAX_PINS: u32 = 120;

/// The register model; see the module.
pub(crate) struct IoApic {
    id: u32,
    selected: u8,
    pins: Vec<Pin>,
    routes_changed: bool,
    refused: u64,
}

#[derive(Clone, Copy, Default)]
struct Pin {
    entry: Redirection,
    is_up: bool,
    /// The line was raised and the message for it is not drained.
    has_edge: bool,
}

impl Pin {
    fn set_line(&mut self, up: bool) {
        let raised = up && !self.is_up;
        self.is_up = up;
        self.has_edge |= raised && !self.entry.is_level() && !self.entry.is_masked();
    }

    fn take_message(&mut self) -> Option<Message> {
        let (level, edge) = (self.entry.is_level(), std::mem::take(&mut self.has_edge));
        let due = if level {
            self.is_up && !self.entry.is_in_service()
        } else {
            edge
        };
        let message = self.entry.message().filter(|_| due)?;
        self.entry.set_in_service(level);
        Some(message)
    }
}

impl IoApic {
    /// All pins are down and masked. There are `pins` of them, but at most the 120 that the index register can name.
    pub(crate) fn new(pins: u32) -> Self {
        let pins = usize::try_from(pins.min(MAX_PINS)).unwrap_or_default();
        Self {
            id: 0,
            selected: 0,
            pins: vec![Pin::default(); pins],
            routes_changed: false,
            refused: 0,
        }
    }

    /// A processor's read. Only 32-bit reads of a register get something; all others read ones.
    pub(crate) fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match (offset, data.len()) {
            (SELECT, 4) => Some(u32::from(self.selected)),
            (WINDOW, 4) => Some(self.register()),
            _ => None,
        };
        match value {
            Some(value) => data.copy_from_slice(&value.to_le_bytes()),
            None => {
                data.fill(0xff);
                self.refused += 1;
            }
        }
    }

    /// A processor's write. Only 32-bit writes of a register do something.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            self.refused += 1;
            return;
        };
        match offset {
            SELECT => self.selected = bytes[0],
            WINDOW => self.set_register(u32::from_le_bytes(bytes)),
            END_OF_INTERRUPT => self.end_of_interrupt(bytes[0]),
            _ => self.refused += 1,
        }
    }

    /// Raises or lowers the line at a pin; none is there beyond the last.
    pub(crate) fn set_line(&mut self, pin: u32, up: bool) {
        let pin = usize::try_from(pin).ok().and_then(|pin| self.pins.get_mut(pin));
        if let Some(pin) = pin {
            pin.set_line(up);
        }
    }

    /// A processor is done with a level-triggered interrupt: pins with this vector may send again.
    pub(crate) fn end_of_interrupt(&mut self, vector: u8) {
        for pin in self.pins.iter_mut().filter(|pin| pin.entry.vector() == vector) {
            let before = pin.entry.route();
            pin.entry.set_in_service(false);
            self.routes_changed |= pin.entry.route() != before;
        }
    }

    /// A message to be sent, lowest pin first.
    pub(crate) fn next_message(&mut self) -> Option<Message> {
        self.pins.iter_mut().find_map(Pin::take_message)
    }

    /// Whether [`routes`](Self::routes) are others than when this was last asked.
    pub(crate) fn take_routes_changed(&mut self) -> bool {
        std::mem::take(&mut self.routes_changed)
    }

    /// What an interrupt at each pin becomes, for the pins where it becomes something, or has and is not at its end: who is to
    /// tell of that goes by the routes.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (u32, Message)> {
        let routes = (0..).zip(&self.pins);
        routes.filter_map(|(number, pin)| Some((number, pin.entry.route()?)))
    }

    /// Whether a pin from `first` on is unmasked.
    pub(crate) fn has_unmasked(&self, first: usize) -> bool {
        self.pins.iter().skip(first).any(|pin| !pin.entry.is_masked())
    }

    /// How many accesses were of no register or of the wrong width.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    fn register(&self) -> u32 {
        match self.selected {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_NUMBER | self.last_pin() << 16,
            index => match half_entry(index) {
                Some((pin, false)) => self.pins.get(pin).map_or(NOTHING, |pin| pin.entry.low()),
                Some((pin, true)) => self.pins.get(pin).map_or(NOTHING, |pin| pin.entry.high()),
                None => NOTHING,
            },
        }
    }

    fn set_register(&mut self, value: u32) {
        if self.selected == ID {
            self.id = value & ID_BITS;
        }
        let Some((pin, high)) = half_entry(self.selected) else {
            return;
        };
        let Some(pin) = self.pins.get_mut(pin) else { return };
        let before = pin.entry.route();
        if high {
            pin.entry.set_high(value);
        } else {
            pin.entry.set_low(value);
        }
        self.routes_changed |= pin.entry.route() != before;
    }

    fn last_pin(&self) -> u32 {
        u32::try_from(self.pins.len().saturating_sub(1)).unwrap_or_default()
    }
}

/// The pin that a register of the table belongs to, and whether it is the high half.
fn half_entry(index: u8) -> Option<(usize, bool)> {
    let index = usize::from(index.checked_sub(TABLE)?);
    Some((index / 2, index % 2 == 1))
}

#[cfg(test)]
mod tests;
