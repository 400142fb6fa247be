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

    pub(crate) fn parse(bytes: [u8; Self::LEN as usize]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Self {
            addr: GuestAddress(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7])),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }

    /// The index of the descriptor that follows in the same table.
    pub(crate) fn next(self) -> Option<u16> {
        (self.flags & NEXT != 0).then_some(self.next)
    }

    pub(crate) fn is_writable(self) -> bool {
        self.flags & WRITE != 0
    }

    pub(crate) fn is_indirect(self) -> bool {
        self.flags & INDIRECT != 0
    }
}
