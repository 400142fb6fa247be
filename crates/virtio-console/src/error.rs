//! What can be wrong with a console's configuration.

use crate::port::MAX_NAME_LEN;

/// Why a console cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A console has port 0 at the least.
    #[error("a console needs at least one port")]
    NoPorts,
    /// Each port costs two queues.
    #[error("{count} ports are more than the {MAX_PORTS} that a console can have")]
    TooManyPorts {
        /// How many were asked for.
        count: usize,
    },
    /// The name does not fit into the control message, or the guest's file of it would have several lines.
    #[error("the name {name:?} of port {port} is longer than {MAX_NAME_LEN} bytes or has control characters")]
    BadName {
        /// The number of the port.
        port: usize,
        /// Its name.
        name: String,
    },
    /// The guest finds ports by name.
    #[error("ports {first} and {second} have the same name {name:?}")]
    DuplicateName {
        /// The number of the first port.
        first: usize,
        /// The number of the second port.
        second: usize,
        /// Their name.
        name: String,
    },
}

/// The most ports of one console: with control 130 queues. The guest allocates for each port at activation.
pub const MAX_PORTS: usize = 64;
