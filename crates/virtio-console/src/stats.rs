//! What a console counts.

/// Counters since activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that went to the guest.
    pub input_bytes: u64,
    /// Bytes that came from the guest and were delivered.
    pub output_bytes: u64,
    /// Bytes that came from the guest when there was no output, or no longer one.
    pub discarded_bytes: u64,
    /// Control messages of the guest that were too short, named a port that is not there, or have no meaning.
    pub bad_control: u64,
    /// Control buffers of the guest that were too short for the message due.
    pub short_control_buffers: u64,
    /// Inputs and outputs that ended with an error of the host.
    pub host_errors: u64,
}
