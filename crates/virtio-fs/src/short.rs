//! Which requests are answered soon enough for the processor that asks to wait for them.
//!
//! What counts is the host's part: a look at a name, a few pages copied. Requests that wait for a disk by their nature, or that
//! move as much as takes longer than waking another thread, are not short. Some others take longer too, which is not known
//! beforehand: a name that the host has to read from its disk first, a WRITE of part of a page that it has to read first, an
//! OPEN that cuts a large file, and what drops the last name or handle of one (UNLINK, RENAME over it, RELEASE, FORGET).

use std::mem::offset_of;

use fuse_wire::{HeaderIn, Opcode, SetattrIn, SetattrValid, WriteIn};

/// Bytes of a request or of the room for its reply.
const MOST: usize = 64 << 10;

/// A WRITE with one of these is on the disk before it is answered; see `Durability`.
const SYNCHRONOUS: u32 = (libc::O_SYNC | libc::O_DSYNC).cast_unsigned();

/// The first bytes of a request: its length and its operation.
pub(crate) type Start = [u8; 8];

/// Where the word of a request is, in bytes, that decides together with its start.
pub(crate) fn word_offset(start: Start) -> Option<usize> {
    match opcode(start) {
        Opcode::WRITE => Some(HeaderIn::LEN + offset_of!(WriteIn, flags)),
        Opcode::SETATTR => Some(HeaderIn::LEN + offset_of!(SetattrIn, valid)),
        _ => None,
    }
}

/// Whether a request is short that has this `word` and `len` bytes there and back.
pub(crate) fn is_short(start: Start, word: u32, len: usize) -> bool {
    let waits = match opcode(start) {
        Opcode::FSYNC
        | Opcode::FSYNCDIR
        | Opcode::SYNCFS
        | Opcode::FALLOCATE
        | Opcode::COPY_FILE_RANGE
        | Opcode::SETLKW
        | Opcode::INIT
        | Opcode::DESTROY => true,
        Opcode::WRITE => word & SYNCHRONOUS != 0,
        Opcode::SETATTR => SetattrValid::from_bits_retain(word).contains(SetattrValid::SIZE),
        _ => false,
    };
    !waits && len <= MOST
}

fn opcode([_, _, _, _, opcode @ ..]: Start) -> Opcode {
    Opcode(u32::from_le_bytes(opcode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(opcode: Opcode) -> Start {
        let [a, b, c, d] = opcode.0.to_le_bytes();
        [0xff, 0xff, 0xff, 0xff, a, b, c, d]
    }

    #[test]
    fn names_attributes_and_some_pages_are_short() {
        for opcode in [
            Opcode::LOOKUP,
            Opcode::GETATTR,
            Opcode::CREATE,
            Opcode::READ,
            Opcode::WRITE,
            Opcode::RELEASE,
            Opcode::FORGET,
            Opcode(9999),
        ] {
            assert!(is_short(start(opcode), 0, MOST), "{opcode:?}");
            assert!(!is_short(start(opcode), 0, MOST + 1), "{opcode:?}");
        }
    }

    #[test]
    fn what_waits_for_a_disk_or_for_somebody_is_not_short() {
        for opcode in [
            Opcode::FSYNC,
            Opcode::FSYNCDIR,
            Opcode::SYNCFS,
            Opcode::FALLOCATE,
            Opcode::COPY_FILE_RANGE,
            Opcode::SETLKW,
            Opcode::INIT,
            Opcode::DESTROY,
        ] {
            assert!(!is_short(start(opcode), 0, 100), "{opcode:?}");
        }
    }

    #[test]
    fn word_of_a_write_and_of_a_change_decides() {
        assert_eq!(word_offset(start(Opcode::WRITE)), Some(72));
        assert_eq!(word_offset(start(Opcode::SETATTR)), Some(40));
        assert_eq!(word_offset(start(Opcode::READ)), None);
        let (append, synchronous) = (0o2001, [0o10_001, 0o4_010_001]);
        assert!(is_short(start(Opcode::WRITE), append, 100));
        for flags in synchronous {
            assert!(!is_short(start(Opcode::WRITE), flags, 100), "{flags:o}");
        }
        let (mode, size) = (1 << 0, 1 << 3);
        assert!(is_short(start(Opcode::SETATTR), mode, 128));
        assert!(!is_short(start(Opcode::SETATTR), mode | size, 128));
    }
}
