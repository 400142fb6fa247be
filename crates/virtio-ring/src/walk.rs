//! From the head of a chain to its segments: bounded, and never trusting what the driver wrote.

use vm_memory::bitmap::MS;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError, VolatileMemory, VolatileSlice};

use crate::Chain;
use crate::descriptor::Descriptor;
use crate::memory::Nearby;

/// The longest indirect table taken, unless the queue is larger. Virtio forbids chains longer than the queue
/// (2.7.5.3.1) but Linux sends them when it may use indirect tables; 1024 is IOV_MAX, which no Linux driver passes.
const MAX_INDIRECT_ENTRIES: u16 = 1024;

/// Descriptors that are not worth a look at where their table is.
const FEW: u16 = 4;

/// Why a chain goes back unused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("next descriptor {index} of {entries}")]
    IndexOutOfRange { index: u16, entries: u16 },
    #[error("more descriptors than the table has")]
    Loop,
    #[error("indirect descriptor, which was not negotiated")]
    IndirectNotNegotiated,
    #[error("indirect descriptor in an indirect table, or with a next one")]
    IndirectMisplaced,
    #[error("indirect table of {0} bytes")]
    IndirectLength(u32),
    #[error("readable descriptor after a writable one")]
    ReadableAfterWritable,
    #[error("{len} bytes at {addr:#x} are not all in guest memory")]
    OutsideMemory { addr: u64, len: u32 },
    #[error("more than 4 GiB in all")]
    TooLong,
    #[error("cannot read the descriptor table")]
    Memory(#[from] GuestMemoryError),
}

/// A descriptor table, the queue's or an indirect one.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pub(crate) addr: GuestAddress,
    pub(crate) entries: u16,
}

impl Table {
    /// Where the table is, if that is worth a look before its descriptors are looked at one by one, and in one piece.
    fn place<'a, M: GuestMemoryBackend>(&self, mem: &Nearby<'a, M>) -> Option<VolatileSlice<'a, MS<'a, M>>> {
        let len = usize::from(self.entries) * usize::from(Descriptor::LEN);
        (self.entries > FEW).then(|| mem.piece(self.addr, len)).flatten()
    }

    /// Appends what starts at descriptor `first`, until the chain ends or goes on in the indirect table that is returned.
    #[inline(always)]
    fn follow<M: GuestMemoryBackend>(
        &self,
        mem: &Nearby<'_, M>,
        place: Option<&VolatileSlice<'_, MS<'_, M>>>,
        first: u16,
        chain: &mut Chain,
    ) -> Result<Option<Descriptor>, Malformed> {
        let mut index = first;
        for _ in 0..self.entries {
            let descriptor = self.descriptor(mem, place, index)?;
            if descriptor.is_indirect() {
                return Ok(Some(descriptor));
            }
            append(mem, descriptor, chain)?;
            match descriptor.next() {
                Some(next) => index = next,
                None => return Ok(None),
            }
        }
        Err(Malformed::Loop)
    }

    /// Descriptor `index`, in the [`place`](Self::place) of the table if that is known.
    #[inline]
    fn descriptor<M: GuestMemoryBackend>(
        &self,
        mem: &Nearby<'_, M>,
        place: Option<&VolatileSlice<'_, MS<'_, M>>>,
        index: u16,
    ) -> Result<Descriptor, Malformed> {
        let entries = self.entries;
        if index >= entries {
            return Err(Malformed::IndexOutOfRange { index, entries });
        }
        let offset = usize::from(index) * usize::from(Descriptor::LEN);
        let halves = place.and_then(|place| place.get_ref(offset).ok());
        Ok(Descriptor::parse(match halves {
            Some(halves) => halves.load(),
            None => mem.read(self.addr.0, offset as u64)?,
        }))
    }
}

/// Fills `chain` with what starts at `head` of the queue's `table`.
#[inline]
pub(crate) fn walk<M: GuestMemoryBackend>(
    mem: &Nearby<'_, M>,
    table: Table,
    head: u16,
    indirect_negotiated: bool,
    chain: &mut Chain,
) -> Result<(), Malformed> {
    chain.restart(head);
    // Chains in the queue's own table are short.
    match table.follow(mem, None, head, chain)? {
        None => Ok(()),
        Some(_) if !indirect_negotiated => Err(Malformed::IndirectNotNegotiated),
        Some(indirect) => walk_indirect(mem, indirect, table.entries, chain),
    }
}

/// Out of line: what is done for each descriptor of a long table keeps its registers so.
#[inline(never)]
fn walk_indirect<M: GuestMemoryBackend>(
    mem: &Nearby<'_, M>,
    indirect: Descriptor,
    queue_size: u16,
    chain: &mut Chain,
) -> Result<(), Malformed> {
    if indirect.next().is_some() {
        return Err(Malformed::IndirectMisplaced);
    }
    let table = indirect_table(indirect, queue_size)?;
    match table.follow(mem, table.place(mem).as_ref(), 0, chain)? {
        None => Ok(()),
        Some(_) => Err(Malformed::IndirectMisplaced),
    }
}

/// The table may be at any address: no alignment is asked for (2.7.5.3).
fn indirect_table(descriptor: Descriptor, queue_size: u16) -> Result<Table, Malformed> {
    let malformed = Malformed::IndirectLength(descriptor.len);
    if descriptor.len == 0 || !descriptor.len.is_multiple_of(u32::from(Descriptor::LEN)) {
        return Err(malformed);
    }
    match u16::try_from(descriptor.len / u32::from(Descriptor::LEN)) {
        Ok(entries) if entries <= queue_size.max(MAX_INDIRECT_ENTRIES) => Ok(Table {
            addr: descriptor.addr,
            entries,
        }),
        _ => Err(malformed),
    }
}

#[inline(always)]
fn append<M: GuestMemoryBackend>(
    mem: &Nearby<'_, M>,
    descriptor: Descriptor,
    chain: &mut Chain,
) -> Result<(), Malformed> {
    let Descriptor { addr, len, .. } = descriptor;
    // An empty descriptor is no buffer: it may point anywhere and orders nothing.
    if len == 0 {
        return Ok(());
    }
    if !descriptor.is_writable() && chain.has_writable() {
        return Err(Malformed::ReadableAfterWritable);
    }
    if !mem.contain(addr, len) {
        return Err(Malformed::OutsideMemory { addr: addr.0, len });
    }
    if chain.append(addr, len, descriptor.is_writable()) {
        Ok(())
    } else {
        Err(Malformed::TooLong)
    }
}
