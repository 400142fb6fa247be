//! Why the program could not be started.

use crate::contract::Failure;

/// What the host is told by number and the user by sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) failure: Failure,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn set_up(message: String) -> Self {
        Self {
            failure: Failure::SetUpFailed,
            message,
        }
    }

    pub(crate) fn not_found(message: String) -> Self {
        Self {
            failure: Failure::NotFound,
            message,
        }
    }

    pub(crate) fn not_executable(message: String) -> Self {
        Self {
            failure: Failure::NotExecutable,
            message,
        }
    }
}
