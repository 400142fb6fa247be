//! Refusals, each with the word it is about.

use std::fmt::{self, Write};

use crate::MmioDevice;

/// Why a piece was refused. The line is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CmdlineError {
    /// The piece makes the line longer than the kernel takes.
    #[error(
        "{word} does not fit: the command line would have {needed} of at most {capacity} bytes",
        word = Shown(word)
    )]
    TooLong {
        /// The piece as it would stand in the line.
        word: String,
        /// Bytes of the line with it, the NUL included.
        needed: usize,
        /// Bytes that the kernel takes.
        capacity: usize,
    },

    /// The piece makes more arguments for init than the kernel takes.
    #[error("{word} is one init argument too many: the kernel takes {most}", word = Shown(word))]
    TooManyInitArgs {
        /// The piece.
        word: String,
        /// The most that are allowed: the kernel's limit less eight.
        most: usize,
    },

    /// The piece makes more variables for init than the kernel takes.
    #[error("{word} is one init environment variable too many: the kernel takes {most}", word = Shown(word))]
    TooManyInitEnv {
        /// The piece.
        word: String,
        /// The most that are allowed: the kernel's limit less eight.
        most: usize,
    },

    /// Only printable ASCII can be carried.
    #[error("{word} has the byte {byte:#04x} at {at}: a command line carries printable ASCII only", word = Shown(word))]
    ForbiddenByte {
        /// The piece.
        word: String,
        /// The first byte that cannot be carried.
        byte: u8,
        /// Its place.
        at: usize,
    },

    /// The kernel would read something else: there is no escape for a double quote, nor for `=` in a name.
    #[error("{word} cannot be carried: the kernel would not read it back as it is", word = Shown(word))]
    CannotCarry {
        /// The piece.
        word: String,
    },

    /// What was given as one word is none, or several.
    #[error("{word} is not one word to the kernel", word = Shown(word))]
    NotOneWord {
        /// The piece.
        word: String,
    },

    /// `--` ends the kernel's words, and a second one ends the arguments of init and hides what follows.
    #[error("`--` cannot be carried as a word or an argument: the kernel ends a list there")]
    Separator,

    /// A word that only its own method may add, so that it is checked there.
    #[error("{word} is not for free words: it stands for a device that must exist", word = Shown(word))]
    Owned {
        /// The word.
        word: String,
    },

    /// Two devices share an address or an IRQ line.
    #[error("device {device} collides with {earlier}")]
    DeviceCollision {
        /// The refused device.
        device: MmioDevice,
        /// The one that is there.
        earlier: MmioDevice,
    },

    /// The kernel refuses IRQ 0 and addresses above the signed range.
    #[error("device {0} is none that the kernel takes")]
    BadDevice(MmioDevice),

    /// What can be said once was said twice.
    #[error("{word} is there already", word = Shown(word))]
    Repeated {
        /// The word.
        word: String,
    },

    /// The word to be removed is not in the line.
    #[error("{word} is not in the command line, so it cannot be removed", word = Shown(word))]
    NotThere {
        /// The word.
        word: String,
    },
}

/// As much of a word as belongs into a message.
struct Shown<'a>(&'a str);

const SHOWN_CHARS: usize = 64;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('`')?;
        for shown in self.0.chars().take(SHOWN_CHARS) {
            match shown {
                ' '..='~' => f.write_char(shown)?,
                other => write!(f, "{}", other.escape_default())?,
            }
        }
        match self.0.chars().nth(SHOWN_CHARS) {
            None => f.write_char('`'),
            Some(_) => write!(f, "...` ({} bytes)", self.0.len()),
        }
    }
}
