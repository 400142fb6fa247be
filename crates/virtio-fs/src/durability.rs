//! Writes that are on the disk before they are answered.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;

use crate::sys;

/// What of a WRITE is on the disk before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing, as far as the WRITE goes.
    None,
    /// The data, and what it takes to find it again (`O_DSYNC`).
    Data,
    /// All that there is to know of the file too, such as its times (`O_SYNC`).
    File,
}

impl Durability {
    /// As the flags of a WRITE say it. Linux sets them not only for files that are open so, which the host's descriptors are then
    /// too, but for `pwritev2` with RWF_DSYNC and for mounts with `-o sync`; and after a WRITE around its cache it sends no FSYNC.
    pub(crate) fn of(flags: u32) -> Self {
        let flags = OFlags::from_bits_retain(flags);
        let asks_for = |durability: &Self| flags.contains(durability.open_flags());
        [Self::File, Self::Data]
            .into_iter()
            .find(asks_for)
            .unwrap_or(Self::None)
    }

    /// By libc's numbers: with rustix DSYNC is the same as SYNC.
    fn open_flags(self) -> OFlags {
        let flags = match self {
            Self::None => 0,
            Self::Data => libc::O_DSYNC,
            Self::File => libc::O_SYNC,
        };
        OFlags::from_bits_retain(flags.cast_unsigned())
    }

    fn write_flags(self) -> ReadWriteFlags {
        match self {
            Self::None => ReadWriteFlags::empty(),
            Self::Data => ReadWriteFlags::DSYNC,
            Self::File => ReadWriteFlags::SYNC,
        }
    }

    /// Writes to `file` with `write`, which is told the flags for `pwritev2(2)`. The host syncs once, whether these say so or
    /// the descriptor was opened so, or both.
    pub(crate) fn write(
        self,
        file: BorrowedFd<'_>,
        write: impl Fn(ReadWriteFlags) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match write(self.write_flags()) {
            Err(error) if self != Self::None && sys::is_unsupported(&error) => {
                let written = write(ReadWriteFlags::empty())?;
                self.sync(file)?;
                Ok(written)
            }
            written => written,
        }
    }

    /// For hosts before Linux 4.7.
    #[cold]
    fn sync(self, file: BorrowedFd<'_>) -> io::Result<()> {
        if rustix::fs::fcntl_getfl(file)?.contains(self.open_flags()) {
            return Ok(());
        }
        let synced = match self {
            Self::None => Ok(()),
            Self::Data => rustix::fs::fdatasync(file),
            Self::File => rustix::fs::fsync(file),
        };
        Ok(synced?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_write_say_how_durable_it_is() {
        for (flags, durability) in [
            (0, Durability::None),
            (libc::O_WRONLY | libc::O_APPEND, Durability::None),
            (libc::O_RDWR | libc::O_DSYNC, Durability::Data),
            (libc::O_WRONLY | libc::O_SYNC, Durability::File),
            // What Linux has for O_SYNC in the kernel is two bits, of which one alone is none.
            (libc::O_SYNC & !libc::O_DSYNC, Durability::None),
        ] {
            assert_eq!(Durability::of(flags.cast_unsigned()), durability, "{flags:o}");
        }
    }
}
