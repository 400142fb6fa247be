//! Which requests are answered soon enough for the processor that asks to wait for them.
//!
//! What counts is the host's part: a look at a name, a few pages copied. Requests that wait for a disk by their nature, or that
//! move as much as takes longer than waking another thread, are not short. A name that the host has to read from its
//! disk first takes longer too; that is not known beforehand.

use fuse_wire::Opcode;

/// Bytes of a request or of the room for its reply.
const MOST: usize = 64 << 10;

/// Whether a request is short that starts with `start`, the length and the operation, and has `len` bytes there and back.
pub(crate) fn is_short(start: [u8; 8], len: usize) -> bool {
    let [_, _, _, _, opcode @ ..] = start;
    let waits = matches!(
        Opcode(u32::from_le_bytes(opcode)),
        Opcode::FSYNC
            | Opcode::FSYNCDIR
            | Opcode::SYNCFS
            | Opcode::FALLOCATE
            | Opcode::COPY_FILE_RANGE
            | Opcode::SETLKW
            | Opcode::DESTROY
    );
    !waits && len <= MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(opcode: Opcode) -> [u8; 8] {
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
            assert!(is_short(start(opcode), MOST), "{opcode:?}");
            assert!(!is_short(start(opcode), MOST + 1), "{opcode:?}");
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
            Opcode::DESTROY,
        ] {
            assert!(!is_short(start(opcode), 100), "{opcode:?}");
        }
    }
}
