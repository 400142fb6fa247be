//! IRQ lines: a set of numbers, lowest first, with a few kept to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{AllocError, Holding, IrqLayout, Purpose, Usage};

/// An interrupt line by its GSI number, the one that `KVM_IRQFD` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IrqLine(pub u32);

impl fmt::Display for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Turn of a free line: all ordinary lines come before all of last resort, and these before those of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    further: bool,
    last_resort: bool,
    line: IrqLine,
}

/// Hands out the lines of an [`IrqLayout`] and remembers their holders.
#[derive(Debug, Clone)]
pub struct IrqPool {
    layout: IrqLayout,
    free: BTreeSet<Turn>,
    held: BTreeMap<IrqLine, Holding<IrqLine>>,
}

impl IrqPool {
    /// A pool with all lines free.
    pub fn new(layout: &IrqLayout) -> Self {
        let mut pool = Self {
            layout: layout.clone(),
            free: BTreeSet::new(),
            held: BTreeMap::new(),
        };
        pool.free = (layout.first().0..=layout.last().0)
            .map(|line| pool.turn(IrqLine(line)))
            .collect();
        pool
    }

    /// Gives `owner` the next free line.
    ///
    /// # Errors
    ///
    /// No line is free, or the name is empty.
    pub fn allocate(&mut self, owner: impl Into<String>) -> Result<IrqLine, AllocError> {
        let owner = named(owner)?;
        let Some(&turn) = self.free.first() else {
            return Err(self.exhausted(vec![owner]));
        };
        self.hold(turn.line, owner, Purpose::Device);
        Ok(turn.line)
    }

    /// Gives `owner` just this line, as a restored machine needs it.
    ///
    /// # Errors
    ///
    /// The line is held or is not in the layout, or the name is empty.
    pub fn allocate_exact(&mut self, owner: impl Into<String>, line: IrqLine) -> Result<(), AllocError> {
        self.take(owner, line, Purpose::Device)
    }

    /// Sets this line aside: it no longer counts among those that devices may have.
    ///
    /// # Errors
    ///
    /// As [`allocate_exact`](Self::allocate_exact).
    pub fn reserve(&mut self, owner: impl Into<String>, line: IrqLine) -> Result<(), AllocError> {
        self.take(owner, line, Purpose::Reserved)
    }

    /// Takes a line back, to be handed out again in its turn, and tells who held it.
    ///
    /// # Errors
    ///
    /// Nobody holds it.
    pub fn free(&mut self, line: IrqLine) -> Result<String, AllocError> {
        let holding = self.held.remove(&line).ok_or(AllocError::IrqLineNotHeld(line))?;
        self.free.insert(self.turn(line));
        Ok(holding.owner)
    }

    /// How many lines there are, and how many are in use.
    pub fn usage(&self) -> Usage {
        let reserved = count(
            self.held
                .values()
                .filter(|holding| holding.purpose == Purpose::Reserved),
        );
        Usage {
            total: self.layout.lines(),
            reserved,
            allocated: count(self.held.values()) - reserved,
        }
    }

    /// Who holds a line, by line.
    pub fn holdings(&self) -> impl Iterator<Item = &Holding<IrqLine>> {
        self.held.values()
    }

    /// Who holds this line.
    pub fn holder(&self, line: IrqLine) -> Option<&str> {
        self.held.get(&line).map(|holding| holding.owner.as_str())
    }

    pub(crate) fn exhausted(&self, refused: Vec<String>) -> AllocError {
        let usage = self.usage();
        AllocError::IrqLinesExhausted {
            lines: usage.for_devices(),
            asked: usage.allocated + count(refused.iter()),
            refused,
            holders: self.held.values().cloned().collect(),
        }
    }

    fn take(&mut self, owner: impl Into<String>, line: IrqLine, purpose: Purpose) -> Result<(), AllocError> {
        let owner = named(owner)?;
        let (first, last) = (self.layout.first(), self.layout.last());
        if line < first || line > last {
            return Err(AllocError::IrqLineOutside {
                line,
                asked_by: owner,
                first,
                last,
            });
        }
        if let Some(holder) = self.holder(line) {
            return Err(AllocError::IrqLineTaken {
                line,
                asked_by: owner,
                holder: holder.to_owned(),
            });
        }
        self.hold(line, owner, purpose);
        Ok(())
    }

    fn hold(&mut self, line: IrqLine, owner: String, purpose: Purpose) {
        self.free.remove(&self.turn(line));
        self.held.insert(
            line,
            Holding {
                resource: line,
                owner,
                purpose,
            },
        );
    }

    fn turn(&self, line: IrqLine) -> Turn {
        Turn {
            further: self.layout.is_further(line),
            last_resort: self.layout.last_resort().contains(&line),
            line,
        }
    }
}

pub(crate) fn named(owner: impl Into<String>) -> Result<String, AllocError> {
    let owner = owner.into();
    if owner.is_empty() {
        Err(AllocError::NoName)
    } else {
        Ok(owner)
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |sum, _| sum + 1)
}
