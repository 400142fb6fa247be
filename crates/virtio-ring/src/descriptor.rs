//! One entry of a descriptor table (virtio 1.3, 2.7.5): le64 addr, le32 len, le16 flags, le16 next.

use vm_memory::GuestAddress;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A copy of a descriptor: the driver may change the original while we decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) addr: GuestAddress,
    pub(crate) len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    pub(crate) const LEN: u16 = 16;

    /// From the two halves of its 16 bytes, as they are in memory.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each field is a part of the second half")]
    pub(crate) fn parse(halves: [u64; 2]) -> Self {
        let [addr, rest] = halves.map(u64::from_le);
        Self {
            addr: GuestAddress(addr),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }

    /// The index of the descriptor that follows in the same table.
    #[inline]
    pub(crate) fn next(self) -> Option<u16> {
        (self.flags & NEXT != 0).then_some(self.next)
    }

    #[inline]
    pub(crate) fn is_writable(self) -> bool {
        self.flags & WRITE != 0
    }

    #[inline]
    pub(crate) fn is_indirect(self) -> bool {
        self.flags & INDIRECT != 0
    }
}
