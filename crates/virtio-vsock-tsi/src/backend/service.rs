//! Services that live in this process and have no socket.

use std::os::fd::BorrowedFd;

/// The host's end of one plain vsock stream, served in this process.
///
/// It is called from the device's thread and must not block. After each call that gave it bytes, it is asked for some.
pub trait StreamService: Send {
    /// Takes bytes of the guest's and returns how many; fewer than there are means: no more for now.
    fn write(&mut self, data: &[u8]) -> usize;

    /// Puts bytes for the guest into `buf`.
    fn read(&mut self, buf: &mut [u8]) -> ServiceRead;

    /// The guest sends no more.
    fn guest_finished(&mut self) {}

    /// The doorbell of a service that does not always answer at once: an eventfd(2) with `EFD_NONBLOCK`, added to when there
    /// is something new to [`read`](Self::read) or room to [`write`](Self::write). The device empties it and then asks. Each
    /// stream has one of its own: an event loop takes a descriptor once.
    fn waker(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// What a service had for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceRead {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing for now.
    Empty,
    /// Nothing ever again.
    Eof,
}

/// Makes the host's end of each stream that a guest opens to a port.
pub trait StreamConnector: Send {
    /// A new stream; `None` refuses it.
    fn connect(&mut self) -> Option<Box<dyn StreamService>>;
}

impl<F, S> StreamConnector for F
where
    F: FnMut() -> Option<S> + Send,
    S: StreamService + 'static,
{
    fn connect(&mut self) -> Option<Box<dyn StreamService>> {
        Some(Box::new(self()?))
    }
}

/// Serves one port for plain vsock datagrams, in this process. It must not block.
pub trait DatagramService: Send {
    /// A datagram came from a port of the guest's.
    fn receive(&mut self, guest_port: u32, data: &[u8]);

    /// The next datagram for the guest: its port there and its bytes. Longer than the guest's buffer, it is dropped.
    fn next(&mut self) -> Option<(u32, Vec<u8>)>;

    /// The doorbell of a service that has datagrams at other times too: an eventfd(2) with `EFD_NONBLOCK`, added to when there
    /// is something new for [`next`](Self::next). The device empties it and then asks.
    fn waker(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Makes a doorbell silent until it is rung again.
pub(crate) fn silence(waker: BorrowedFd<'_>) {
    // Nothing in it: somebody else did.
    let _ = rustix::io::read(waker, &mut [0u8; 8]);
}
