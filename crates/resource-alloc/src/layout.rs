//! Which IRQ lines and which MMIO window a machine has, as data.

use crate::{IrqLine, LayoutError, MmioRange};

/// KVM routes at most 4096 GSIs (`KVM_MAX_IRQ_ROUTES`); it also bounds the memory of a pool.
const HIGHEST_GSI: IrqLine = IrqLine(4095);

/// Lines below belong to the timer, the keyboard, the cascade and the serial ports.
const X86_64_FIRST_LINE: u32 = 5;
/// The in-kernel IO-APIC has 24 pins.
const X86_64_IRQCHIP_LAST_LINE: u32 = 23;
/// The user-space IO-APIC of the split irqchip has as many pins as are asked for; 120 are.
const X86_64_SPLIT_LAST_LINE: u32 = 119;
/// The guest's RTC driver claims it; a device there works, but costs the guest its `/dev/rtc0`.
const X86_64_RTC_LINE: u32 = 8;
/// Start of the 32-bit gap, where RAM ends.
const X86_64_MMIO_BASE: u64 = 0xd000_0000;
/// The IO-APIC's registers.
const X86_64_MMIO_END: u64 = 0xfec0_0000;

/// First and last shared peripheral interrupt as given to an irqfd.
const AARCH64_FIRST_LINE: u32 = 32;
const AARCH64_LAST_LINE: u32 = 223;
/// The window begins above the interrupt controller; its first slot stays empty.
const AARCH64_MMIO_WINDOW: u64 = 0x0a00_1000;
/// RAM of a guest that boots firmware.
const AARCH64_MMIO_END: u64 = 0x4000_0000;

/// A virtio-mmio register block and its configuration space.
const VIRTIO_MMIO_SLOT: u64 = 0x1000;

/// The IRQ lines that devices may have, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IrqLayout {
    first: IrqLine,
    /// The end of the first part, whose lines are all handed out before one above it is.
    first_part_last: IrqLine,
    last: IrqLine,
    last_resort: Vec<IrqLine>,
}

impl IrqLayout {
    /// Lines `first` to `last`, lowest first, except that those in `last_resort` are handed out only when no other is free.
    ///
    /// # Errors
    ///
    /// An empty range, a line above 4095, or a line of last resort outside the range.
    pub fn new(first: IrqLine, last: IrqLine, last_resort: &[IrqLine]) -> Result<Self, LayoutError> {
        if first > last {
            return Err(LayoutError::NoIrqLines { first, last });
        }
        if last > HIGHEST_GSI {
            return Err(LayoutError::IrqLineTooHigh {
                last,
                highest: HIGHEST_GSI,
            });
        }
        if let Some(&outside) = last_resort.iter().find(|&&line| line < first || line > last) {
            return Err(LayoutError::LastResortOutside(outside));
        }
        Ok(Self {
            first,
            first_part_last: last,
            last,
            last_resort: last_resort.to_vec(),
        })
    }

    /// The same lines in the same order, those of last resort among them, and after all of them the lines above up to
    /// `last`. A device keeps its line when a machine grows from the one layout into the other.
    ///
    /// # Errors
    ///
    /// `last` is below the lines that there are, or above 4095.
    pub fn extended_to(self, last: IrqLine) -> Result<Self, LayoutError> {
        let extended = Self::new(self.first, last, &self.last_resort)?;
        if last < self.last {
            return Err(LayoutError::NoIrqLines { first: self.last, last });
        }
        Ok(Self {
            first_part_last: self.first_part_last,
            ..extended
        })
    }

    /// x86_64 with the in-kernel irqchip: 5 to 23, 8 last because of the RTC. 19 lines.
    ///
    /// The guest must be told of all 24 pins (an MP table with 24 entries), or devices above 15 fail in it.
    pub fn x86_64_irqchip() -> Self {
        Self {
            first: IrqLine(X86_64_FIRST_LINE),
            first_part_last: IrqLine(X86_64_IRQCHIP_LAST_LINE),
            last: IrqLine(X86_64_IRQCHIP_LAST_LINE),
            last_resort: vec![IrqLine(X86_64_RTC_LINE)],
        }
    }

    /// x86_64 with the split irqchip and a user-space IO-APIC of 120 pins: the lines of
    /// [`x86_64_irqchip`](Self::x86_64_irqchip) as it hands them out, then 24 to 119. 115 lines.
    ///
    /// So a device has the same line with either irqchip, and a machine that outgrows the one in the kernel moves none.
    pub fn x86_64_split_irqchip() -> Self {
        Self {
            last: IrqLine(X86_64_SPLIT_LAST_LINE),
            ..Self::x86_64_irqchip()
        }
    }

    /// aarch64 with a GIC: shared peripheral interrupts 32 to 223. 192 lines.
    pub fn aarch64_gic() -> Self {
        Self {
            first: IrqLine(AARCH64_FIRST_LINE),
            first_part_last: IrqLine(AARCH64_LAST_LINE),
            last: IrqLine(AARCH64_LAST_LINE),
            last_resort: Vec::new(),
        }
    }

    /// The lowest line.
    pub fn first(&self) -> IrqLine {
        self.first
    }

    /// The highest line.
    pub fn last(&self) -> IrqLine {
        self.last
    }

    /// The lines that are handed out when no other is free, or none but those that the layout was extended by.
    pub fn last_resort(&self) -> &[IrqLine] {
        &self.last_resort
    }

    /// Whether the layout was extended by this line.
    pub(crate) fn is_further(&self, line: IrqLine) -> bool {
        line > self.first_part_last
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        u64::from(self.last.0 - self.first.0) + 1
    }
}

/// The window of guest physical addresses for device registers, divided into slots of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MmioLayout {
    base: u64,
    end: u64,
    slot_len: u64,
}

impl MmioLayout {
    /// Addresses `base` up to and without `end`, in slots of `slot_len` bytes.
    ///
    /// # Errors
    ///
    /// An empty window, a slot length that is no power of two, or bounds that are not multiples of it.
    pub fn new(base: u64, end: u64, slot_len: u64) -> Result<Self, LayoutError> {
        let aligned = slot_len.is_power_of_two() && base.is_multiple_of(slot_len) && end.is_multiple_of(slot_len);
        if base >= end || !aligned {
            return Err(LayoutError::NoMmioWindow { base, end, slot_len });
        }
        Ok(Self { base, end, slot_len })
    }

    /// x86_64: from the start of the 32-bit gap to the IO-APIC.
    pub fn x86_64() -> Self {
        Self {
            base: X86_64_MMIO_BASE,
            end: X86_64_MMIO_END,
            slot_len: VIRTIO_MMIO_SLOT,
        }
    }

    /// aarch64: above the interrupt controller, without the window's first slot.
    pub fn aarch64() -> Self {
        Self {
            base: AARCH64_MMIO_WINDOW + VIRTIO_MMIO_SLOT,
            end: AARCH64_MMIO_END,
            slot_len: VIRTIO_MMIO_SLOT,
        }
    }

    /// The whole window.
    pub fn window(&self) -> MmioRange {
        MmioRange {
            base: self.base,
            len: self.end - self.base,
        }
    }

    /// Length of a slot, in bytes: a power of two.
    pub fn slot_len(&self) -> u64 {
        self.slot_len
    }

    /// How many slots there are.
    pub fn slots(&self) -> u64 {
        (self.end - self.base) / self.slot_len
    }
}

/// All that a machine has for its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its IRQ lines.
    pub irq: IrqLayout,
    /// Its MMIO window.
    pub mmio: MmioLayout,
}

impl Layout {
    /// x86_64 with the in-kernel irqchip: room for 19 devices.
    pub fn x86_64_irqchip() -> Self {
        Self {
            irq: IrqLayout::x86_64_irqchip(),
            mmio: MmioLayout::x86_64(),
        }
    }

    /// x86_64 with the split irqchip: room for 115 devices.
    pub fn x86_64_split_irqchip() -> Self {
        Self {
            irq: IrqLayout::x86_64_split_irqchip(),
            mmio: MmioLayout::x86_64(),
        }
    }

    /// aarch64 with a GIC: room for 192 devices.
    pub fn aarch64() -> Self {
        Self {
            irq: IrqLayout::aarch64_gic(),
            mmio: MmioLayout::aarch64(),
        }
    }
}
