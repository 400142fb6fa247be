//! The terminal that the program is started from: raw while a machine runs, as it was afterwards.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{self, OptionalActions, Termios};

/// A terminal in raw mode. It is restored when this is dropped: at the end, on an error, and when a panic unwinds.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Makes the terminal raw: every key goes to the guest, Ctrl-C too.
    pub(crate) fn new(terminal: impl AsFd) -> io::Result<Self> {
        let fd = terminal.as_fd().try_clone_to_owned()?;
        let before = termios::tcgetattr(&fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&fd, OptionalActions::Now, &raw)?;
        Ok(Self { fd, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(&self.fd, OptionalActions::Now, &self.before);
    }
}

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// The size of a terminal, or `None` if it is none.
pub(crate) fn size_of(fd: impl AsFd) -> Option<Size> {
    let size = termios::tcgetwinsize(fd).ok()?;
    Some(Size {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    /// Both ends of a new terminal.
    fn terminal() -> (OwnedFd, std::fs::File) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        unlockpt(&controller).expect("a pseudo-terminal");
        let name = ptsname(&controller, Vec::new())
            .expect("a pseudo-terminal")
            .into_string()
            .expect("ASCII");
        (
            controller,
            std::fs::File::options()
                .read(true)
                .write(true)
                .open(name)
                .expect("a pseudo-terminal"),
        )
    }

    fn is_raw(terminal: impl AsFd) -> bool {
        let modes = termios::tcgetattr(terminal).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    #[test]
    fn raw_terminal_is_as_before_after_its_drop() {
        let (_controller, terminal) = terminal();
        assert!(!is_raw(&terminal));
        let raw = RawTerminal::new(&terminal).expect("a terminal");
        assert!(is_raw(&terminal));
        drop(raw);
        assert!(!is_raw(&terminal));
    }

    #[test]
    fn raw_terminal_is_as_before_after_a_panic() {
        let (_controller, terminal) = terminal();
        let panicked = std::panic::catch_unwind(|| {
            let _raw = RawTerminal::new(&terminal).expect("a terminal");
            assert!(is_raw(&terminal));
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panicked.is_err() && !is_raw(&terminal));
    }

    #[test]
    fn file_that_is_no_terminal_has_no_size_and_cannot_be_raw() {
        let file = tempfile::tempfile().expect("a temporary file");
        assert_eq!(size_of(&file), None);
        assert!(RawTerminal::new(&file).is_err());
    }

    #[test]
    fn terminal_has_the_size_that_was_set() {
        let (_controller, terminal) = terminal();
        let size = termios::Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        termios::tcsetwinsize(&terminal, size).expect("a terminal");
        assert_eq!(size_of(&terminal), Some(Size { columns: 80, rows: 24 }));
    }
}
