//! MMIO ranges: first fit over the gaps of a window.
//!
//! The gaps are kept, not only what is held: a search passes over gaps, of which there is one as long as nothing was freed,
//! and not over all that was handed out. Freed ranges join their neighbours at once.

use std::collections::BTreeMap;
use std::fmt;

use crate::irq::named;
use crate::{AllocError, Holding, MmioLayout, Purpose, Usage};

/// A range of guest physical addresses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MmioRange {
    /// First address.
    pub base: u64,
    /// Number of bytes.
    pub len: u64,
}

impl MmioRange {
    /// The first address above, or `None` when the range passes the end of the address space.
    pub fn end(&self) -> Option<u64> {
        self.base.checked_add(self.len)
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.base).is_some_and(|offset| offset < self.len)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.len > 0 && other.len > 0 && (self.contains(other.base) || other.contains(self.base))
    }

    fn encloses(&self, other: &Self) -> bool {
        let fits = |offset: u64| self.len.checked_sub(offset).is_some_and(|room| other.len <= room);
        other.base.checked_sub(self.base).is_some_and(fits)
    }
}

impl fmt::Display for MmioRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.base, self.len)
    }
}

/// Hands out ranges of an [`MmioLayout`] and remembers their holders. Ranges are made of whole slots.
#[derive(Debug, Clone)]
pub struct MmioPool {
    layout: MmioLayout,
    /// Length by base. Never two that touch.
    gaps: BTreeMap<u64, u64>,
    held: BTreeMap<u64, Holding<MmioRange>>,
}

impl MmioPool {
    /// A pool with the whole window free.
    pub fn new(layout: &MmioLayout) -> Self {
        let window = layout.window();
        Self {
            layout: layout.clone(),
            gaps: BTreeMap::from([(window.base, window.len)]),
            held: BTreeMap::new(),
        }
    }

    /// Gives `owner` the lowest free slot.
    ///
    /// # Errors
    ///
    /// No slot is free, or the name is empty.
    pub fn allocate_slot(&mut self, owner: impl Into<String>) -> Result<MmioRange, AllocError> {
        let slot_len = self.layout.slot_len();
        self.allocate(owner, slot_len)
    }

    /// Gives `owner` the lowest free range of `len` bytes, a multiple of the slot length.
    ///
    /// # Errors
    ///
    /// No gap is long enough, `len` is not made of whole slots, or the name is empty.
    pub fn allocate(&mut self, owner: impl Into<String>, len: u64) -> Result<MmioRange, AllocError> {
        let owner = named(owner)?;
        self.check_whole_slots(MmioRange { base: 0, len }, &owner)?;
        let Some((&base, _)) = self.gaps.iter().find(|&(_, &gap)| gap >= len) else {
            return Err(self.exhausted(len, vec![owner]));
        };
        let range = MmioRange { base, len };
        self.hold(range, owner, Purpose::Device);
        Ok(range)
    }

    /// Gives `owner` just this range, as a restored machine needs it.
    ///
    /// # Errors
    ///
    /// A part of it is held or outside the window, it is not made of whole slots, or the name is empty.
    pub fn allocate_exact(&mut self, owner: impl Into<String>, range: MmioRange) -> Result<(), AllocError> {
        self.take(owner, range, Purpose::Device)
    }

    /// Sets this range aside: it no longer counts among what devices may have.
    ///
    /// # Errors
    ///
    /// As [`allocate_exact`](Self::allocate_exact).
    pub fn reserve(&mut self, owner: impl Into<String>, range: MmioRange) -> Result<(), AllocError> {
        self.take(owner, range, Purpose::Reserved)
    }

    /// Takes a range back, whole as it was handed out, and tells who held it.
    ///
    /// # Errors
    ///
    /// Nobody holds just this range.
    pub fn free(&mut self, range: MmioRange) -> Result<String, AllocError> {
        if self.holder(range).is_none() {
            return Err(AllocError::MmioNotHeld(range));
        }
        let holding = self.held.remove(&range.base).ok_or(AllocError::MmioNotHeld(range))?;
        self.open_gap(range);
        Ok(holding.owner)
    }

    /// How many slots there are, and how many are in use.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            total: self.layout.slots(),
            reserved: 0,
            allocated: 0,
        };
        for holding in self.held.values() {
            let slots = holding.resource.len / self.layout.slot_len();
            match holding.purpose {
                Purpose::Device => usage.allocated += slots,
                Purpose::Reserved => usage.reserved += slots,
            }
        }
        usage
    }

    /// Who holds a range, by address.
    pub fn holdings(&self) -> impl Iterator<Item = &Holding<MmioRange>> {
        self.held.values()
    }

    /// Who holds just this range.
    pub fn holder(&self, range: MmioRange) -> Option<&str> {
        let holding = self.held.get(&range.base)?;
        (holding.resource == range).then_some(holding.owner.as_str())
    }

    pub(crate) fn exhausted(&self, len: u64, refused: Vec<String>) -> AllocError {
        let holders = self.held.values().cloned().collect();
        AllocError::MmioExhausted {
            len,
            window: self.layout.window(),
            refused,
            holders,
        }
    }

    fn take(&mut self, owner: impl Into<String>, range: MmioRange, purpose: Purpose) -> Result<(), AllocError> {
        let owner = named(owner)?;
        self.check_whole_slots(range, &owner)?;
        if !self.layout.window().encloses(&range) {
            return Err(AllocError::MmioOutside {
                range,
                asked_by: owner,
                window: self.layout.window(),
            });
        }
        if let Some(holding) = self.first_overlap(range) {
            let (held, holder) = (holding.resource, holding.owner.clone());
            return Err(AllocError::MmioTaken {
                range,
                asked_by: owner,
                held,
                holder,
            });
        }
        self.hold(range, owner, purpose);
        Ok(())
    }

    fn check_whole_slots(&self, range: MmioRange, owner: &str) -> Result<(), AllocError> {
        let slot_len = self.layout.slot_len();
        if range.len > 0 && range.len.is_multiple_of(slot_len) && range.base.is_multiple_of(slot_len) {
            return Ok(());
        }
        Err(AllocError::MmioNotWholeSlots {
            range,
            asked_by: owner.to_owned(),
            slot_len,
        })
    }

    fn first_overlap(&self, range: MmioRange) -> Option<&Holding<MmioRange>> {
        let below = self.held.range(..range.base).next_back();
        let from = self.held.range(range.base..).next();
        below
            .into_iter()
            .chain(from)
            .map(|(_, holding)| holding)
            .find(|holding| holding.resource.overlaps(&range))
    }

    /// Expects the range to lie in one gap.
    fn hold(&mut self, range: MmioRange, owner: String, purpose: Purpose) {
        if let Some((&gap_base, &gap_len)) = self.gaps.range(..=range.base).next_back() {
            let before = range.base - gap_base;
            let after = gap_len.saturating_sub(before).saturating_sub(range.len);
            self.gaps.remove(&gap_base);
            if before > 0 {
                self.gaps.insert(gap_base, before);
            }
            if after > 0 {
                self.gaps.insert(range.base + range.len, after);
            }
        }
        self.held.insert(
            range.base,
            Holding {
                resource: range,
                owner,
                purpose,
            },
        );
    }

    fn open_gap(&mut self, range: MmioRange) {
        let mut gap = range;
        if let Some(len) = self.gaps.remove(&(range.base + range.len)) {
            gap.len += len;
        }
        let below = self
            .gaps
            .range(..range.base)
            .next_back()
            .map(|(&base, &len)| MmioRange { base, len });
        if let Some(below) = below.filter(|below| below.end() == Some(range.base)) {
            gap = MmioRange {
                base: below.base,
                len: below.len + gap.len,
            };
        }
        self.gaps.insert(gap.base, gap.len);
    }
}
