//! The descriptor tables in use until the kernel loads its own.

use crate::layout::{GDT, IDT};
use crate::{Blob, DescriptorTable, Segment};

const CODE_EXECUTE_READ_ACCESSED: u8 = 0xb;
const DATA_READ_WRITE_ACCESSED: u8 = 0x3;
const TSS_BUSY: u8 = 0xb;

const FLAT: Segment = Segment {
    selector: 0,
    base: 0,
    limit: u32::MAX,
    kind: 0,
    present: true,
    code_or_data: true,
    big: false,
    long: false,
    granular: true,
};

/// 64-bit code.
pub const CODE64: Segment = Segment {
    selector: 0x08,
    kind: CODE_EXECUTE_READ_ACCESSED,
    long: true,
    ..FLAT
};
/// 32-bit code over all 4 GiB.
pub const CODE32: Segment = Segment {
    selector: 0x08,
    kind: CODE_EXECUTE_READ_ACCESSED,
    big: true,
    ..FLAT
};
/// Data over all 4 GiB.
pub const DATA: Segment = Segment {
    selector: 0x10,
    kind: DATA_READ_WRITE_ACCESSED,
    big: true,
    ..FLAT
};
/// The task state segment that VM entry wants in 64-bit mode.
pub const TSS64: Segment = Segment {
    selector: 0x18,
    kind: TSS_BUSY,
    code_or_data: false,
    ..FLAT
};
/// The task state segment of the PVH entry: the smallest 32-bit one.
pub const TSS32: Segment = Segment {
    limit: 0x67,
    granular: false,
    ..TSS64
};

/// The GDT's place and length: null, code, data, task state.
pub const GDTR: DescriptorTable = DescriptorTable {
    base: GDT,
    limit: 4 * 8 - 1,
};
/// The IDT's place and length: one empty entry.
pub const IDTR: DescriptorTable = DescriptorTable {
    base: IDT,
    limit: 8 - 1,
};

/// The descriptor of a segment (Intel SDM volume 3, 3.4.5).
pub const fn descriptor(segment: &Segment) -> u64 {
    let limit = if segment.granular {
        segment.limit >> 12
    } else {
        segment.limit
    } as u64;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | (segment.kind as u64 & 0xf) << 40
        | (segment.code_or_data as u64) << 44
        | (segment.present as u64) << 47
        | (limit >> 16 & 0xf) << 48
        | (segment.long as u64) << 53
        | (segment.big as u64) << 54
        | (segment.granular as u64) << 55
        | (segment.base >> 24 & 0xff) << 56
}

/// GDT and IDT as bytes in their places.
pub fn tables(code: &Segment, task: &Segment) -> Vec<Blob> {
    let entries = [0, descriptor(code), descriptor(&DATA), descriptor(task)];
    let gdt = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    vec![Blob::new(GDT, gdt), Blob::new(IDT, vec![0; 8])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_the_64_bit_entry_match_the_known_table() {
        let entries = [CODE64, DATA, TSS64].map(|segment| descriptor(&segment));
        assert_eq!(
            entries,
            [0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff]
        );
    }

    #[test]
    fn descriptors_of_the_pvh_entry_match_the_known_table() {
        let entries = [CODE32, DATA, TSS32].map(|segment| descriptor(&segment));
        assert_eq!(
            entries,
            [0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067]
        );
    }

    #[test]
    fn descriptor_spreads_the_base_over_its_three_places() {
        let segment = Segment {
            base: 0x1234_5678,
            limit: 0xf_ffff,
            ..Segment::default()
        };
        assert_eq!(descriptor(&segment), 0x120f_0034_5678_ffff);
    }

    #[test]
    fn tables_are_as_long_as_their_registers_say() {
        let [gdt, idt] = &tables(&CODE64, &TSS64)[..] else {
            panic!("two tables")
        };
        assert_eq!((gdt.address, gdt.bytes.len()), (0x500, usize::from(GDTR.limit) + 1));
        assert_eq!((idt.address, idt.bytes.len()), (0x520, usize::from(IDTR.limit) + 1));
        assert_eq!(gdt.bytes[8..16], 0x00af_9b00_0000_ffff_u64.to_le_bytes());
    }
}
