//! From the head of a chain to its segments: bounded, and never trusting what the driver wrote.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError};

use crate::Chain;
use crate::descriptor::Descriptor;
use crate::memory;

/// The longest indirect table taken, unless the queue is larger. Virtio forbids chains longer than the queue
/// (2.7.5.3.1) but Linux sends them when it may use indirect tables; 1024 is IOV_MAX, which no Linux driver passes.
const MAX_INDIRECT_ENTRIES: u16 = 1024;

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
    fn descriptor<M: GuestMemoryBackend>(&self, mem: &M, index: u16) -> Result<Descriptor, Malformed> {
        if index >= self.entries {
            return Err(Malformed::IndexOutOfRange {
                index,
                entries: self.entries,
            });
        }
        let offset = u64::from(index) * u64::from(Descriptor::LEN);
        let addr = self
            .addr
            .0
            .checked_add(offset)
            .ok_or(GuestMemoryError::GuestAddressOverflow)?;
        let mut bytes = [0; Descriptor::LEN as usize];
        memory::read(mem, GuestAddress(addr), &mut bytes)?;
        Ok(Descriptor::parse(bytes))
    }

    /// Calls `visit` for each descriptor from `first` on; stops at the end of the chain.
    fn follow<M: GuestMemoryBackend>(
        &self,
        mem: &M,
        first: u16,
        mut visit: impl FnMut(Descriptor) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut index = first;
        for _ in 0..self.entries {
            let descriptor = self.descriptor(mem, index)?;
            visit(descriptor)?;
            match descriptor.next() {
                Some(next) => index = next,
                None => return Ok(()),
            }
        }
        Err(Malformed::Loop)
    }
}

/// Fills `chain` with what starts at `head` of the queue's `table`.
pub(crate) fn walk<M: GuestMemoryBackend>(
    mem: &M,
    table: Table,
    head: u16,
    indirect_negotiated: bool,
    chain: &mut Chain,
) -> Result<(), Malformed> {
    chain.restart(head);
    table.follow(mem, head, |descriptor| {
        if !descriptor.is_indirect() {
            return append(mem, descriptor, chain);
        }
        if !indirect_negotiated {
            return Err(Malformed::IndirectNotNegotiated);
        }
        if descriptor.next().is_some() {
            return Err(Malformed::IndirectMisplaced);
        }
        indirect_table(descriptor, table.entries)?.follow(mem, 0, |inner| {
            if inner.is_indirect() {
                return Err(Malformed::IndirectMisplaced);
            }
            append(mem, inner, chain)
        })
    })
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

fn append<M: GuestMemoryBackend>(mem: &M, descriptor: Descriptor, chain: &mut Chain) -> Result<(), Malformed> {
    let Descriptor { addr, len, .. } = descriptor;
    // An empty descriptor is no buffer: it may point anywhere and orders nothing.
    if len == 0 {
        return Ok(());
    }
    if !descriptor.is_writable() && chain.has_writable() {
        return Err(Malformed::ReadableAfterWritable);
    }
    if !memory::contains(mem, addr, len) {
        return Err(Malformed::OutsideMemory { addr: addr.0, len });
    }
    if chain.append(addr, len, descriptor.is_writable()) {
        Ok(())
    } else {
        Err(Malformed::TooLong)
    }
}
