//! A split virtqueue from the driver's side, byte by byte (virtio 1.3, 2.7).

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::Buffer;

/// Bits of a descriptor's flags (virtio 1.3, 2.7.5).
pub mod descriptor_flags {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

const AVAIL_F_NO_INTERRUPT: u16 = 1;
const DESCRIPTOR_LEN: u64 = 16;

/// A descriptor as it is in memory. Any values are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// See [`descriptor_flags`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    /// The 16 bytes of the descriptor.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }

    /// Writes the descriptor to any place in memory, for indirect tables by hand.
    ///
    /// # Panics
    /// When that is not guest memory.
    pub fn write_to(self, mem: &GuestMemoryMmap<()>, addr: u64) {
        mem.write_slice(&self.to_bytes(), GuestAddress(addr))
            .expect("guest memory");
    }
}

/// An element of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The head of the chain.
    pub id: u32,
    /// How many bytes the device wrote.
    pub len: u32,
}

/// The driver of one split virtqueue. It holds no memory: each method takes it.
#[derive(Clone, Debug)]
pub struct SplitRing {
    size: u16,
    desc: u64,
    avail: u64,
    used: u64,
    free: Vec<u16>,
    /// For each head that is out, the descriptors of its chain.
    out: Vec<Option<Vec<u16>>>,
    avail_idx: u16,
    last_used: u16,
    /// avail.idx when the device was last asked whether it wants to be notified.
    last_kick: u16,
    event_idx: bool,
}

impl SplitRing {
    /// A ring with its three parts one after another at `base`, which is aligned to 16. The memory is zero.
    ///
    /// # Panics
    /// When `base` is not aligned.
    #[must_use]
    pub fn new(base: u64, size: u16) -> Self {
        assert!(base.is_multiple_of(16), "descriptor tables are aligned to 16");
        let avail = base + DESCRIPTOR_LEN * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self::at(base, avail, used, size)
    }

    /// A ring with its parts wherever a test wants them.
    #[must_use]
    pub fn at(desc: u64, avail: u64, used: u64, size: u16) -> Self {
        Self {
            size,
            desc,
            avail,
            used,
            free: (0..size).rev().collect(),
            out: vec![None; usize::from(size)],
            avail_idx: 0,
            last_used: 0,
            last_kick: 0,
            event_idx: false,
        }
    }

    /// How many bytes [`new`](Self::new) lays out.
    #[must_use]
    pub fn footprint(size: u16) -> usize {
        let size = usize::from(size);
        (16 * size + 6 + 2 * size).next_multiple_of(4) + 6 + 8 * size
    }

    /// VIRTIO_F_EVENT_IDX was negotiated: used_event and avail_event count, the flags do not.
    #[must_use]
    pub fn with_event_idx(mut self) -> Self {
        self.event_idx = true;
        self
    }

    /// Both indices start at `index` instead of 0, to have them wrap soon. The device must start there too.
    #[must_use]
    pub fn starting_at(mut self, mem: &GuestMemoryMmap<()>, index: u16) -> Self {
        self.avail_idx = index;
        self.last_used = index;
        self.last_kick = index;
        self.set_avail_idx(mem, index);
        self.store(mem, self.used + 2, index);
        self
    }

    /// The queue size.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The address of the descriptor table.
    #[must_use]
    pub fn desc_table(&self) -> u64 {
        self.desc
    }

    /// The address of the available ring.
    #[must_use]
    pub fn avail_ring(&self) -> u64 {
        self.avail
    }

    /// The address of the used ring.
    #[must_use]
    pub fn used_ring(&self) -> u64 {
        self.used
    }

    /// Whether VIRTIO_F_EVENT_IDX is negotiated.
    #[must_use]
    pub fn event_idx(&self) -> bool {
        self.event_idx
    }

    /// How many descriptors are free.
    #[must_use]
    pub fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// Makes a chain of `buffers` available and returns its head; `None` when there are too few free descriptors.
    ///
    /// # Panics
    /// When `buffers` is empty.
    pub fn add(&mut self, mem: &GuestMemoryMmap<()>, buffers: &[Buffer]) -> Option<u16> {
        assert!(!buffers.is_empty(), "a chain has at least one descriptor");
        let left = self.free.len().checked_sub(buffers.len())?;
        let mut indices = self.free.split_off(left);
        indices.reverse();
        self.write_chain(mem, &indices, buffers);
        Some(self.make_available(mem, indices))
    }

    /// Makes a chain of `buffers` available through an indirect table at `table`, which has 16 bytes for each.
    /// `None` when no descriptor is free.
    ///
    /// # Panics
    /// When `buffers` is empty, or has more than 65,535.
    pub fn add_indirect(&mut self, mem: &GuestMemoryMmap<()>, table: u64, buffers: &[Buffer]) -> Option<u16> {
        self.add_with_indirect_tail(mem, &[], table, buffers)
    }

    /// As [`add_indirect`](Self::add_indirect), with `direct` descriptors before the indirect one (2.7.5.3.2).
    ///
    /// # Panics
    /// When `buffers` is empty, or has more than 65,535.
    pub fn add_with_indirect_tail(
        &mut self,
        mem: &GuestMemoryMmap<()>,
        direct: &[Buffer],
        table: u64,
        buffers: &[Buffer],
    ) -> Option<u16> {
        assert!(!buffers.is_empty(), "an indirect table has at least one descriptor");
        let left = self.free.len().checked_sub(direct.len() + 1)?;
        let entries = u16::try_from(buffers.len()).expect("a table has at most 65,535 descriptors");
        for (index, &buffer) in (0..entries).zip(buffers) {
            let next = (index + 1 < entries).then_some(index + 1);
            describe(buffer, next).write_to(mem, table + DESCRIPTOR_LEN * u64::from(index));
        }
        let mut indices = self.free.split_off(left);
        indices.reverse();
        let mut chain = direct.to_vec();
        chain.push(Buffer::readable(table, u32::from(entries) * 16));
        self.write_chain(mem, &indices, &chain);
        let tail = *indices.last().expect("there is at least the indirect descriptor");
        let flags = descriptor_flags::INDIRECT;
        self.set_descriptor(
            mem,
            tail,
            Descriptor {
                addr: table,
                len: u32::from(entries) * 16,
                flags,
                next: 0,
            },
        );
        Some(self.make_available(mem, indices))
    }

    /// Takes the next element of the used ring, if there is one, and frees its descriptors.
    ///
    /// # Panics
    /// When the device gave back a chain that is not out: the device is wrong.
    pub fn poll_used(&mut self, mem: &GuestMemoryMmap<()>) -> Option<Used> {
        if self.used_idx(mem) == self.last_used {
            return None;
        }
        let used = self.used_element(mem, self.last_used % self.size);
        self.last_used = self.last_used.wrapping_add(1);
        let chain = self.out.get_mut(used.id as usize).and_then(Option::take);
        self.free
            .extend(chain.unwrap_or_else(|| panic!("the device gave back {used:?}, which is not out")));
        Some(used)
    }

    /// All elements of the used ring that are there.
    pub fn poll_all_used(&mut self, mem: &GuestMemoryMmap<()>) -> Vec<Used> {
        std::iter::from_fn(|| self.poll_used(mem)).collect()
    }

    /// Whether the device wants to be notified of what was added since the last call (virtio 1.3, 2.7.10).
    pub fn wants_kick(&mut self, mem: &GuestMemoryMmap<()>) -> bool {
        fence(Ordering::SeqCst);
        let (old, new) = (self.last_kick, self.avail_idx);
        self.last_kick = new;
        if self.event_idx {
            passed(self.avail_event(mem), old, new)
        } else {
            old != new && self.used_flags(mem) & 1 == 0
        }
    }

    /// Asks for an interrupt at the next used element, or for none.
    pub fn want_interrupts(&self, mem: &GuestMemoryMmap<()>, wanted: bool) {
        match (self.event_idx, wanted) {
            (true, true) => self.set_used_event(mem, self.last_used),
            (true, false) => self.set_used_event(mem, self.last_used.wrapping_sub(1)),
            (false, true) => self.set_avail_flags(mem, 0),
            (false, false) => self.set_avail_flags(mem, AVAIL_F_NO_INTERRUPT),
        }
    }

    /// Puts `head` into the available ring, whatever it is, and moves the index.
    pub fn offer_head(&mut self, mem: &GuestMemoryMmap<()>, head: u16) {
        self.set_avail_entry(mem, self.avail_idx % self.size.max(1), head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.set_avail_idx(mem, self.avail_idx);
    }

    /// Writes a descriptor of the table.
    pub fn set_descriptor(&self, mem: &GuestMemoryMmap<()>, index: u16, descriptor: Descriptor) {
        descriptor.write_to(mem, self.desc + DESCRIPTOR_LEN * u64::from(index));
    }

    /// Writes an entry of the available ring.
    pub fn set_avail_entry(&self, mem: &GuestMemoryMmap<()>, slot: u16, head: u16) {
        self.store(mem, self.avail + 4 + 2 * u64::from(slot), head);
    }

    /// Writes avail.idx.
    pub fn set_avail_idx(&self, mem: &GuestMemoryMmap<()>, idx: u16) {
        self.store(mem, self.avail + 2, idx);
    }

    /// The index that the driver has reached.
    #[must_use]
    pub fn avail_idx(&self) -> u16 {
        self.avail_idx
    }

    /// Writes avail.flags; 1 is NO_INTERRUPT.
    pub fn set_avail_flags(&self, mem: &GuestMemoryMmap<()>, flags: u16) {
        self.store(mem, self.avail, flags);
    }

    /// Writes used_event: an interrupt is wanted when used.idx passes it.
    pub fn set_used_event(&self, mem: &GuestMemoryMmap<()>, event: u16) {
        self.store(mem, self.avail + 4 + 2 * u64::from(self.size), event);
    }

    /// Reads used.idx.
    #[must_use]
    pub fn used_idx(&self, mem: &GuestMemoryMmap<()>) -> u16 {
        load(mem, self.used + 2)
    }

    /// Reads used.flags; 1 is NO_NOTIFY.
    #[must_use]
    pub fn used_flags(&self, mem: &GuestMemoryMmap<()>) -> u16 {
        load(mem, self.used)
    }

    /// Reads avail_event: a notification is wanted when avail.idx passes it.
    #[must_use]
    pub fn avail_event(&self, mem: &GuestMemoryMmap<()>) -> u16 {
        load(mem, self.used + 4 + 8 * u64::from(self.size))
    }

    /// Reads an element of the used ring, there or not.
    ///
    /// # Panics
    /// When the used ring is not guest memory.
    #[must_use]
    pub fn used_element(&self, mem: &GuestMemoryMmap<()>, slot: u16) -> Used {
        let at = self.used + 4 + 8 * u64::from(slot);
        let word = |offset| u32::from_le(mem.read_obj(GuestAddress(at + offset)).expect("guest memory"));
        Used {
            id: word(0),
            len: word(4),
        }
    }

    fn write_chain(&self, mem: &GuestMemoryMmap<()>, indices: &[u16], buffers: &[Buffer]) {
        let nexts = indices.iter().skip(1).copied().map(Some).chain(std::iter::once(None));
        for ((&index, &buffer), next) in indices.iter().zip(buffers).zip(nexts) {
            self.set_descriptor(mem, index, describe(buffer, next));
        }
    }

    fn make_available(&mut self, mem: &GuestMemoryMmap<()>, indices: Vec<u16>) -> u16 {
        let head = indices[0];
        self.out[usize::from(head)] = Some(indices);
        self.offer_head(mem, head);
        head
    }

    fn store(&self, mem: &GuestMemoryMmap<()>, addr: u64, value: u16) {
        mem.store(value.to_le(), GuestAddress(addr), Ordering::Release)
            .expect("guest memory");
    }
}

fn load(mem: &GuestMemoryMmap<()>, addr: u64) -> u16 {
    u16::from_le(mem.load(GuestAddress(addr), Ordering::Acquire).expect("guest memory"))
}

fn describe(buffer: Buffer, next: Option<u16>) -> Descriptor {
    let mut flags = if buffer.writable { descriptor_flags::WRITE } else { 0 };
    if next.is_some() {
        flags |= descriptor_flags::NEXT;
    }
    Descriptor {
        addr: buffer.addr,
        len: buffer.len,
        flags,
        next: next.unwrap_or(0),
    }
}

/// Whether an index that moved from `old` to `new` went from at most `event` to past it, found by walking there.
fn passed(event: u16, old: u16, new: u16) -> bool {
    let mut at = old;
    while at != new {
        if at == event {
            return true;
        }
        at = at.wrapping_add(1);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Guest;

    #[test]
    fn add_lays_out_the_bytes_of_the_standard() {
        let guest = Guest::new(0x10000);
        let mut ring = SplitRing::new(0x1000, 4);

        let head = ring
            .add(guest.mem(), &[Buffer::readable(0x2000, 5), Buffer::writable(0x3000, 7)])
            .unwrap();

        assert_eq!(head, 0);
        let first = [0, 0x20, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 1, 0];
        let second = [0, 0x30, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(guest.read(0x1000, 32), [first, second].concat());
        assert_eq!(guest.read(0x1040, 6), [0, 0, 1, 0, 0, 0]);
        assert_eq!(ring.free_descriptors(), 2);
    }

    #[test]
    fn poll_used_frees_the_chain_for_the_next() {
        let guest = Guest::new(0x10000);
        let mut ring = SplitRing::new(0x1000, 2);
        let pair = [Buffer::readable(0x2000, 5), Buffer::writable(0x3000, 7)];
        let head = ring.add(guest.mem(), &pair).unwrap();
        assert_eq!(ring.add(guest.mem(), &pair), None);

        guest.write(ring.used_ring(), &[0, 0, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0]);

        assert_eq!(
            ring.poll_used(guest.mem()),
            Some(Used {
                id: u32::from(head),
                len: 7
            })
        );
        assert_eq!(ring.poll_used(guest.mem()), None);
        assert!(ring.add(guest.mem(), &pair).is_some());
    }

    #[test]
    fn add_with_indirect_tail_points_to_the_table() {
        let guest = Guest::new(0x10000);
        let mut ring = SplitRing::new(0x1000, 2);

        ring.add_with_indirect_tail(
            guest.mem(),
            &[Buffer::readable(0x2000, 5)],
            0x4001,
            &[Buffer::readable(0x2100, 1), Buffer::writable(0x3000, 7)],
        )
        .unwrap();

        assert_eq!(
            guest.read(0x1010, 16),
            [1, 0x40, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0]
        );
        assert_eq!(guest.read(0x4001 + 12, 4), [1, 0, 1, 0]);
        assert_eq!(guest.read(0x4011 + 12, 4), [2, 0, 0, 0]);
    }
}
