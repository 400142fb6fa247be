//! What a port is made of: the embedder's side.

use std::fmt;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One port of the console.
#[derive(Debug)]
pub struct Port {
    /// What the guest finds in `/sys/class/virtio-ports/*/name`; empty for none. At most [`MAX_NAME_LEN`] bytes.
    pub name: String,
    /// What the port is to the guest.
    pub kind: PortKind,
    /// Where the guest's input comes from; `None` for a port that is only written to.
    pub input: Option<OwnedFd>,
    /// Where the guest's output goes; `None`: it is thrown away.
    pub output: Option<Output>,
}

/// The longest name of a port, in bytes.
pub const MAX_NAME_LEN: usize = 128;

/// What a port is to the guest.
#[derive(Clone, Debug)]
pub enum PortKind {
    /// A console, `hvcN`. It lives as long as the VM: closing means nothing to it.
    Terminal {
        /// The size, which may change at any time.
        size: TerminalSize,
    },
    /// A stream, `vportNpM`. When the guest closes it, input and output are closed on the host too, after what the
    /// guest wrote before has been delivered.
    Pipe,
}

/// Where the guest's output goes.
pub enum Output {
    /// A pipe, a socket, a terminal, a file. Is never made to block; see [`Console`](crate::Console) for how.
    Fd(OwnedFd),
    /// Code of the embedder, called on the worker's thread: it is to take what it gets without waiting. An error, and
    /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) is one here, closes the output.
    Sink(Box<dyn Write + Send>),
}

impl From<OwnedFd> for Output {
    fn from(fd: OwnedFd) -> Self {
        Self::Fd(fd)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fd(fd) => f.debug_tuple("Fd").field(fd).finish(),
            Self::Sink(_) => f.debug_tuple("Sink").finish_non_exhaustive(),
        }
    }
}

/// Columns and rows of a terminal; 0 and 0 if not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

/// The size of a terminal, shared between the device and who watches the host's terminal. Clones are the same size.
#[derive(Clone, Debug, Default)]
pub struct TerminalSize(Arc<AtomicU32>);

impl TerminalSize {
    /// A terminal of this size.
    pub fn new(size: Size) -> Self {
        let shared = Self::default();
        shared.set(size);
        shared
    }

    /// Changes the size. The guest learns of it at the next call of the worker, so wake that (kick the device).
    pub fn set(&self, size: Size) {
        self.0
            .store(u32::from(size.cols) << 16 | u32::from(size.rows), Ordering::Release);
    }

    /// The size now.
    pub fn get(&self) -> Size {
        let [c0, c1, r0, r1] = self.0.load(Ordering::Acquire).to_be_bytes();
        Size {
            cols: u16::from_be_bytes([c0, c1]),
            rows: u16::from_be_bytes([r0, r1]),
        }
    }
}

/// A handle on all terminals of one console.
#[derive(Clone, Debug)]
pub struct ConsoleControl {
    terminals: Arc<[TerminalSize]>,
}

impl ConsoleControl {
    pub(crate) fn new(terminals: Arc<[TerminalSize]>) -> Self {
        Self { terminals }
    }

    /// Gives every terminal port this size. Kick the device afterwards, see [`TerminalSize::set`].
    pub fn resize(&self, size: Size) {
        for terminal in self.terminals.iter() {
            terminal.set(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_size_set_on_a_clone_is_seen_by_all() {
        let size = TerminalSize::new(Size { cols: 80, rows: 24 });
        size.clone().set(Size { cols: 0xffff, rows: 1 });
        assert_eq!(size.get(), Size { cols: 0xffff, rows: 1 });
    }
}
