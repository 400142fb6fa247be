//! Who holds what, and how much is left.

use std::fmt;

/// Why a resource is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A device asked for it.
    Device,
    /// It was set aside and is not part of what devices may have.
    Reserved,
}

/// One resource with its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding<T> {
    /// What is held.
    pub resource: T,
    /// The name that was given with the request.
    pub owner: String,
    /// Whether it was allocated or reserved.
    pub purpose: Purpose,
}

/// How much of a pool is in use. The unit is the pool's: IRQ lines, or MMIO slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Usage {
    /// All that the layout has.
    pub total: u64,
    /// What was set aside.
    pub reserved: u64,
    /// What devices hold.
    pub allocated: u64,
}

impl Usage {
    /// What devices may have at most: the total less what was set aside.
    pub fn for_devices(&self) -> u64 {
        self.total.saturating_sub(self.reserved)
    }

    /// What is left for further devices.
    pub fn free(&self) -> u64 {
        self.for_devices().saturating_sub(self.allocated)
    }
}

/// An error text stays readable with this many names; a window of a hundred thousand slots would not.
const NAMES_IN_TEXT: usize = 128;

/// Prints holdings as `console (5), root (6)`.
pub(crate) struct HeldBy<'a, T>(pub(crate) &'a [Holding<T>]);

impl<T: fmt::Display> fmt::Display for HeldBy<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody");
        }
        for (index, holding) in self.0.iter().take(NAMES_IN_TEXT).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} ({})", holding.owner, holding.resource)?;
        }
        more(f, self.0.len())
    }
}

/// Prints names as `rng, balloon`.
pub(crate) struct Names<'a>(pub(crate) &'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().take(NAMES_IN_TEXT).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name}")?;
        }
        more(f, self.0.len())
    }
}

fn more(f: &mut fmt::Formatter<'_>, len: usize) -> fmt::Result {
    match len.saturating_sub(NAMES_IN_TEXT) {
        0 => Ok(()),
        left_out => write!(f, " and {left_out} more"),
    }
}
