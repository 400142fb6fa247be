//! What can be wrong with a request.

/// Why a request could not be understood. It is the driver's fault in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The message ends before its arguments do.
    #[error("{needed} bytes of arguments are needed and {have} are there")]
    Truncated {
        /// How many bytes the arguments take.
        needed: usize,
        /// How many there are.
        have: usize,
    },
    /// A string has no NUL before the message ends.
    #[error("a string is not terminated")]
    Unterminated,
    /// A name that no directory entry can have: empty, `.`, `..`, or with a slash in it.
    #[error("a name is not the name of a directory entry")]
    BadName,
    /// A string is longer than Linux allows for its kind.
    #[error("a string of {len} bytes where {max} are allowed")]
    TooLong {
        /// Length in bytes.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// The operation has no name in this version of the protocol.
    #[error("operation {0} is not known")]
    UnknownOpcode(u32),
}

impl RequestError {
    /// The error number (positive, as Linux has it) that the driver is to see.
    #[must_use]
    pub fn errno(self) -> i32 {
        const EINVAL: i32 = 22;
        const ENAMETOOLONG: i32 = 36;
        const ENOSYS: i32 = 38;
        match self {
            Self::TooLong { .. } => ENAMETOOLONG,
            Self::UnknownOpcode(_) => ENOSYS,
            Self::Truncated { .. } | Self::Unterminated | Self::BadName => EINVAL,
        }
    }
}
