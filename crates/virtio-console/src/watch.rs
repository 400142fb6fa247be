//! Waiting for descriptors, as the handler asks for it.

use std::io;
use std::os::fd::BorrowedFd;

/// Which way a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// There is something to read, or an end of it.
    Readable,
    /// There is room to write.
    Writable,
}

/// Waits for descriptors on behalf of a [`Handler`](crate::Handler), level-triggered, with an error or a hang-up
/// counting as either direction. Each descriptor is watched in one direction only.
pub trait Watch {
    /// Starts waiting; the handler then wants [`Handler::ready`](crate::Handler::ready) with `token`.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, direction: Direction) -> io::Result<()>;

    /// Stops waiting for a descriptor that is watched.
    fn unwatch(&mut self, fd: BorrowedFd<'_>);
}
