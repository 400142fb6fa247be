//! Quoting that the kernel undoes.
//!
//! There is no rule to prove here: each way to write a word is read back with the kernel's parser, and the first that gives
//! the word again is taken. A word follows in that reading, so that a quote left open is noticed.

use crate::CmdlineError;
use crate::kernel_view::{Param, Placed, place_words};

/// Writes an argument of init.
pub(crate) fn argument(text: &str) -> Result<String, CmdlineError> {
    check_bytes(text)?;
    if text == "--" {
        return Err(CmdlineError::Separator);
    }
    let ways = [text.to_owned(), format!("\"{text}\"")];
    first_read_back(ways, text, |param| param.joined() == text)
}

/// Writes a parameter with a value.
pub(crate) fn parameter(name: &str, value: &str) -> Result<String, CmdlineError> {
    let text = format!("{name}={value}");
    check_bytes(&text)?;
    let ways = [text.clone(), format!("{name}=\"{value}\""), format!("\"{text}\"")];
    first_read_back(ways, &text, |param| {
        param.name == name && param.value.as_deref() == Some(value)
    })
}

/// Checks a word that is given as it shall stand in the line.
pub(crate) fn as_written(text: &str) -> Result<Param, CmdlineError> {
    check_bytes(text)?;
    let word = read_back(text).ok_or_else(|| CmdlineError::NotOneWord { word: text.to_owned() })?;
    if word.is_separator {
        Err(CmdlineError::Separator)
    } else {
        Ok(word.param)
    }
}

fn first_read_back<const N: usize>(
    ways: [String; N],
    text: &str,
    is_meant: impl Fn(&Param) -> bool,
) -> Result<String, CmdlineError> {
    ways.into_iter()
        .find(|way| read_back(way).is_some_and(|word| !word.is_separator && is_meant(&word.param)))
        .ok_or_else(|| CmdlineError::CannotCarry { word: text.to_owned() })
}

/// The one word that `written` makes when another follows, or `None` when it makes none, several, or swallows the other.
fn read_back(written: &str) -> Option<Placed> {
    let mut words = place_words(&format!("{written} x"));
    let next = words.pop().filter(|next| next.range.start > written.len())?;
    let word = words.pop().filter(|word| word.range == (0..written.len()))?;
    (words.is_empty() && next.param.name == "x").then_some(word)
}

pub(crate) fn check_bytes(text: &str) -> Result<(), CmdlineError> {
    match text.bytes().enumerate().find(|(_, byte)| !matches!(byte, 0x20..=0x7e)) {
        None => Ok(()),
        Some((at, byte)) => Err(CmdlineError::ForbiddenByte {
            word: text.to_owned(),
            byte,
            at,
        }),
    }
}
