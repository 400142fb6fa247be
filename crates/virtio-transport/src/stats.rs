//! What is counted.

/// What the driver did that it may not, and what went wrong at DRIVER_OK. Since the transport was made; reset does not
/// clear it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Status writes out of order, or that clear bits.
    pub status_rejected: u64,
    /// FEATURES_OK refused: a bit that was not offered, or no VERSION_1.
    pub features_rejected: u64,
    /// Writes to registers that are read-only, or not writable in this state, or not there.
    pub writes_ignored: u64,
    /// Accesses of a width or alignment that registers do not have.
    pub accesses_malformed: u64,
    /// Notifications while the device was not running, or for a queue that it does not have.
    pub notifications_ignored: u64,
    /// DRIVER_OK answered with DEVICE_NEEDS_RESET.
    pub activations_failed: u64,
}
