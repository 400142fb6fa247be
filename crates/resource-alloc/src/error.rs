//! Refusals, with the facts that explain them.

use crate::holding::{HeldBy, Holding, Names};
use crate::{IrqLine, MmioRange};

/// Why a request was refused. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// There are fewer IRQ lines than were asked for.
    #[error(
        "{lines} IRQ lines, {asked} asked for, held by: {held}; none left for: {none_left}",
        held = HeldBy(holders), none_left = Names(refused)
    )]
    IrqLinesExhausted {
        /// The lines that devices may have: all of the layout less the reserved ones.
        lines: u64,
        /// The lines in use by devices plus those of the whole refused request.
        asked: u64,
        /// The names that got nothing, in order.
        refused: Vec<String>,
        /// Who holds a line (after as much of the request as would have fitted), by line.
        holders: Vec<Holding<IrqLine>>,
    },

    /// No gap in the MMIO window is long enough.
    #[error(
        "no {len:#x} bytes left in the MMIO window {window}, held by: {held}; none left for: {none_left}",
        held = HeldBy(holders), none_left = Names(refused)
    )]
    MmioExhausted {
        /// The length that was asked for, in bytes.
        len: u64,
        /// The whole window.
        window: MmioRange,
        /// The names that got nothing, in order.
        refused: Vec<String>,
        /// Who holds a range, by address.
        holders: Vec<Holding<MmioRange>>,
    },

    /// The line asked for by number is in use.
    #[error("IRQ line {line}, asked for by {asked_by}, is held by {holder}")]
    IrqLineTaken {
        /// The line.
        line: IrqLine,
        /// Who asked.
        asked_by: String,
        /// Who has it.
        holder: String,
    },

    /// The line asked for by number is none of the layout's.
    #[error("IRQ line {line}, asked for by {asked_by}, is not one of lines {first} to {last}")]
    IrqLineOutside {
        /// The line.
        line: IrqLine,
        /// Who asked.
        asked_by: String,
        /// The lowest line of the layout.
        first: IrqLine,
        /// The highest line of the layout.
        last: IrqLine,
    },

    /// The range asked for by address overlaps one that is in use.
    #[error("MMIO range {range}, asked for by {asked_by}, overlaps {held} of {holder}")]
    MmioTaken {
        /// The range.
        range: MmioRange,
        /// Who asked.
        asked_by: String,
        /// The first range it overlaps.
        held: MmioRange,
        /// Who has that.
        holder: String,
    },

    /// The range asked for is not inside the window.
    #[error("MMIO range {range}, asked for by {asked_by}, is not inside the window {window}")]
    MmioOutside {
        /// The range.
        range: MmioRange,
        /// Who asked.
        asked_by: String,
        /// The whole window.
        window: MmioRange,
    },

    /// A base or a length is not made of whole slots, or the length is zero.
    #[error("MMIO range {range}, asked for by {asked_by}, is not made of whole slots of {slot_len:#x} bytes")]
    MmioNotWholeSlots {
        /// The range; its base is 0 when none was asked for.
        range: MmioRange,
        /// Who asked.
        asked_by: String,
        /// The length of a slot, in bytes.
        slot_len: u64,
    },

    /// The line to be freed is held by nobody.
    #[error("IRQ line {0} is held by nobody")]
    IrqLineNotHeld(IrqLine),

    /// The range to be freed is not one that somebody holds.
    #[error("MMIO range {0} is held by nobody")]
    MmioNotHeld(MmioRange),

    /// The line and the range to be freed together have different holders.
    #[error("IRQ line {irq} is held by {irq_holder}, MMIO range {mmio} by {mmio_holder}: not one device")]
    NotOneDevice {
        /// The line.
        irq: IrqLine,
        /// Who holds the line.
        irq_holder: String,
        /// The range.
        mmio: MmioRange,
        /// Who holds the range.
        mmio_holder: String,
    },

    /// A request came without a name to hold it by.
    #[error("a request needs the name of its owner")]
    NoName,
}

/// Why numbers do not make a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The first line is above the last one.
    #[error("IRQ lines {first} to {last} are no range")]
    NoIrqLines {
        /// The lowest line.
        first: IrqLine,
        /// The highest line.
        last: IrqLine,
    },

    /// More lines than KVM routes.
    #[error("IRQ line {last} is above the highest GSI, {highest}")]
    IrqLineTooHigh {
        /// The highest line of the layout.
        last: IrqLine,
        /// The highest there can be.
        highest: IrqLine,
    },

    /// A line that is to be handed out last is not in the range.
    #[error("IRQ line {0} is to be handed out last but is not in the range")]
    LastResortOutside(IrqLine),

    /// The window is empty, or its bounds are not multiples of the slot length, or that is not a power of two.
    #[error("MMIO window {base:#x} to {end:#x} does not hold whole slots of {slot_len:#x} bytes")]
    NoMmioWindow {
        /// First address.
        base: u64,
        /// First address above.
        end: u64,
        /// Length of a slot, in bytes.
        slot_len: u64,
    },
}
