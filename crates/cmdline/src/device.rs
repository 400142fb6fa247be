//! `virtio_mmio.device=` (Linux, `Documentation/admin-guide/kernel-parameters.txt`).

use std::fmt::{self, Write};

/// The name of the kernel parameter.
pub(crate) const PARAMETER: &str = "virtio_mmio.device";

/// Bytes of a device's registers: what the parameter's `4K` says.
const LEN: u64 = 0x1000;

/// Room for most tokens.
const TOKEN_LEN: usize = 40;

/// A device that the kernel finds by the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MmioDevice {
    /// Guest physical address of its 4 KiB of registers.
    pub base: u64,
    /// Its IRQ line, by GSI.
    pub irq: u32,
}

impl MmioDevice {
    pub(crate) fn collides_with(&self, other: &Self) -> bool {
        self.irq == other.irq || self.base.abs_diff(other.base) < LEN
    }

    /// The driver reads the address as a signed number, and refuses line 0.
    pub(crate) fn is_taken_by_the_kernel(&self) -> bool {
        let end = self.base.checked_add(LEN);
        self.irq != 0 && end.is_some_and(|end| i64::try_from(end).is_ok())
    }

    pub(crate) fn token(&self) -> String {
        let mut token = String::with_capacity(TOKEN_LEN);
        token.push_str(PARAMETER);
        token.push('=');
        // A string takes whatever is written to it.
        let _ = write!(token, "{self}");
        token
    }
}

impl fmt::Display for MmioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "4K@{:#010x}:{}", self.base, self.irq)
    }
}
