//! Where output goes, as one type.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::HostFd;
use crate::Output;

pub(crate) enum HostOutput {
    Fd(HostFd),
    Sink(Box<dyn Write + Send>),
}

impl HostOutput {
    pub(crate) fn new(output: Output) -> Self {
        match output {
            Output::Fd(fd) => Self::Fd(HostFd::new(fd)),
            Output::Sink(sink) => Self::Sink(sink),
        }
    }

    pub(crate) fn piece_len(&self) -> usize {
        match self {
            Self::Fd(fd) => fd.piece_len(),
            Self::Sink(_) => usize::MAX,
        }
    }

    /// Writes what there is room for, which is more than nothing. `WouldBlock` comes from a descriptor only.
    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Fd(fd) => fd.write(buf),
            Self::Sink(sink) => sink.write(buf).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::other("the sink would block"),
                _ => error,
            }),
        };
        match written {
            Ok(0) if !buf.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        }
    }

    /// Nothing more comes for now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Fd(_) => Ok(()),
            Self::Sink(sink) => sink.flush(),
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Fd(fd) => Some(fd.as_fd()),
            Self::Sink(_) => None,
        }
    }
}
