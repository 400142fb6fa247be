//! The pieces of a line.

use std::fmt;

/// One word of the line as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word, quotes included.
    pub text: String,
    /// What it is there for.
    pub origin: Origin,
}

/// What a word is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// A default of whoever builds the line.
    Kernel,
    /// The root file system.
    Root,
    /// A virtio-mmio device.
    Device,
    /// Transparent socket impersonation.
    Tsi,
    /// The user asked for it.
    User,
    /// An argument of init, after `--`.
    Init,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Root => "root",
            Self::Device => "device",
            Self::Tsi => "tsi",
            Self::User => "user",
            Self::Init => "init",
        })
    }
}

/// Which sockets of the guest are carried by the vsock device instead of by the guest's own network.
///
/// The tokens are parameters of the TSI kernel. They belong on the line only when a vsock device with the matching flag is
/// attached: without it, `connect` fails in the guest in a way that programs do not expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tsi {
    /// `AF_INET` and `AF_INET6`: `tsi_hijack`.
    Inet,
    /// `AF_UNIX`: `tsi_hijack_unix`.
    Unix,
}

impl Tsi {
    /// The word that turns it on.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Inet => "tsi_hijack",
            Self::Unix => "tsi_hijack_unix",
        }
    }
}

/// How the root file system is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `rw`
    ReadWrite,
    /// `ro`
    ReadOnly,
}

impl Access {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
        }
    }
}
