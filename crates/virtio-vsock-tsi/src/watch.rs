//! How a handler is told that descriptors are ready: what it needs of an event loop.

use std::io;
use std::os::fd::BorrowedFd;

/// What to wait for. Hang-up and error are always reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// There is something to read, or the peer has closed its sending side.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read, or the peer has closed its sending side.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// Both directions are closed.
    pub hangup: bool,
    /// An error is pending.
    pub error: bool,
}

/// A level-triggered event loop. Events come back through
/// [`Handler::socket_ready`](crate::Handler::socket_ready); one for a token that is gone does no harm.
pub trait Watcher {
    /// Starts waiting.
    ///
    /// # Errors
    /// When the loop cannot take it; the socket is then treated as broken.
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()>;

    /// Changes what is waited for.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()>;

    /// Stops waiting.
    ///
    /// # Errors
    /// When the loop does not know the descriptor.
    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// In the place of [`remove`](Self::remove): `fd` is about to be closed, and is the only descriptor of its socket. A loop
    /// that is an epoll instance and nothing else need not do anything, as the kernel then forgets it by itself.
    fn closing(&mut self, fd: BorrowedFd<'_>) {
        // One that is not known is as good as removed.
        let _ = self.remove(fd);
    }
}

/// No event loop: for a handler whose connections are all served in this process, so that there is no socket to wait for.
#[derive(Clone, Copy, Debug)]
pub struct NoLoop;

impl Watcher for NoLoop {
    fn add(&mut self, _fd: BorrowedFd<'_>, _token: u32, _interest: Interest) -> io::Result<()> {
        Ok(())
    }

    fn modify(&mut self, _fd: BorrowedFd<'_>, _token: u32, _interest: Interest) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}
