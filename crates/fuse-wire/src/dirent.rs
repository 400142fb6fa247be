//! Directory entries as READDIR and READDIRPLUS pack them.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::EntryOut;
use crate::structs::wire_structs;

wire_structs! {
    /// Before the name
    pub(crate) DirentHead { ino: U64, off: U64, namelen: U32, kind: U32 }
}

const NAME_OFFSET: usize = size_of::<DirentHead>();
const ALIGN: usize = 8;

/// Packs directory entries into a buffer of the caller, each padded to 8 bytes.
#[derive(Debug)]
pub struct DirentBuffer<'a> {
    buf: &'a mut [u8],
    used: usize,
}

impl<'a> DirentBuffer<'a> {
    /// Starts at the beginning of `buf`.
    #[must_use]
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, used: 0 }
    }

    /// How many bytes are packed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was packed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether an entry with a name of `name_len` bytes would fit; `plus` is READDIRPLUS.
    #[must_use]
    pub fn fits(&self, name_len: usize, plus: bool) -> bool {
        record_len(name_len, plus).is_some_and(|len| len <= self.buf.len() - self.used)
    }

    /// Packs one entry of READDIR, or with `entry` one of READDIRPLUS. False, and nothing packed, when it does not fit.
    ///
    /// `offset` is what the driver passes to go on after this entry; `kind` is the DT_ number.
    #[must_use]
    pub fn push(&mut self, entry: Option<&EntryOut>, ino: u64, offset: u64, kind: u32, name: &[u8]) -> bool {
        let Some(record) =
            record_len(name.len(), entry.is_some()).and_then(|len| self.buf.get_mut(self.used..)?.get_mut(..len))
        else {
            return false;
        };
        let Ok(name_len) = u32::try_from(name.len()) else {
            return false;
        };
        self.used += record.len();
        let head = DirentHead {
            ino: ino.into(),
            off: offset.into(),
            namelen: name_len.into(),
            kind: kind.into(),
        };
        let rest = put(record, entry.map_or(&[], |entry| entry.as_bytes()));
        let rest = put(rest, head.as_bytes());
        put(rest, name).fill(0);
        true
    }
}

/// Copies `bytes` to the front of `to` and gives what is left.
fn put<'a>(to: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (now, later) = to.split_at_mut(bytes.len().min(to.len()));
    for (to, from) in now.iter_mut().zip(bytes) {
        *to = *from;
    }
    later
}

fn record_len(name_len: usize, plus: bool) -> Option<usize> {
    let fixed = if plus {
        size_of::<EntryOut>() + NAME_OFFSET
    } else {
        NAME_OFFSET
    };
    fixed.checked_add(name_len)?.checked_next_multiple_of(ALIGN)
}
