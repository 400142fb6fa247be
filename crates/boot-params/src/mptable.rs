//! The MP table: it tells a kernel without ACPI which CPUs and which interrupt lines there are.
//!
//! Without it Linux finds no IO-APIC, says "SMP disabled" and brings up one CPU. An interrupt line that has no entry here
//! cannot be requested by a driver, so there is one entry for each pin of the IO-APIC, not only for the 16 of an ISA bus.
//!
//! Source: Intel MultiProcessor Specification 1.4, chapter 4.

use crate::layout::{IO_APIC, LOCAL_APIC, MP_FLOATING_POINTER, MP_TABLE};
use crate::{Blob, BootParamsError};

/// The most CPUs: APIC ids are 8 bits, 0xff means all, and the IO-APIC needs one.
pub const MAX_CPUS: u32 = 254;
/// The most pins an IO-APIC can have (its version register's entry count is at most 239).
pub const MAX_PINS: u32 = 240;

const SPEC_VERSION_1_4: u8 = 4;
const APIC_VERSION: u8 = 0x14;
const HEADER_LEN: usize = 44;
const HEADER_CHECKSUM: usize = 7;

const CPU_ENABLED: u8 = 1;
const CPU_BOOTSTRAP: u8 = 1 << 1;
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES_FPU_APIC: u32 = 0x201;
const IO_APIC_ENABLED: u8 = 1;

const ISA_BUS: u8 = 0;
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
const EVERY_LOCAL_APIC: u8 = 0xff;

/// The floating pointer and the table, as bytes in their places.
///
/// # Errors
/// [`BootParamsError::CpuCount`] unless `cpus` is 1 to [`MAX_CPUS`], [`BootParamsError::PinCount`] unless `pins` is 1 to
/// [`MAX_PINS`].
pub fn mptable(cpus: u32, pins: u32) -> Result<Vec<Blob>, BootParamsError> {
    let cpu_count = u8::try_from(cpus)
        .ok()
        .filter(|count| (1..=MAX_CPUS).contains(&u32::from(*count)))
        .ok_or(BootParamsError::CpuCount {
            asked: cpus,
            max: MAX_CPUS,
        })?;
    let pin_count = u8::try_from(pins)
        .ok()
        .filter(|count| (1..=MAX_PINS).contains(&u32::from(*count)))
        .ok_or(BootParamsError::PinCount {
            asked: pins,
            max: MAX_PINS,
        })?;
    let table = configuration_table(cpu_count, pin_count);
    Ok(vec![
        Blob::new(MP_TABLE, table),
        Blob::new(MP_FLOATING_POINTER, floating_pointer()),
    ])
}

fn floating_pointer() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(b"_MP_");
    bytes.extend_from_slice(&low32(MP_TABLE));
    bytes.extend_from_slice(&[1, SPEC_VERSION_1_4, 0, 0, 0, 0, 0, 0]);
    close_with_checksum(&mut bytes, 10);
    bytes
}

fn configuration_table(cpus: u8, pins: u8) -> Vec<u8> {
    let io_apic_id = cpus + 1;
    let mut entries = Entries::default();
    for id in 0..cpus {
        entries.cpu(id);
    }
    entries.isa_bus();
    entries.io_apic(io_apic_id);
    for pin in 0..pins {
        entries.interrupt([3, INT, 0, 0, ISA_BUS, pin, io_apic_id, pin]);
    }
    entries.interrupt([4, EXT_INT, 0, 0, ISA_BUS, 0, 0, 0]);
    entries.interrupt([4, NMI, 0, 0, ISA_BUS, 0, EVERY_LOCAL_APIC, 1]);
    let mut table = header(&entries);
    table.append(&mut entries.bytes);
    close_with_checksum(&mut table, HEADER_CHECKSUM);
    table
}

fn header(entries: &Entries) -> Vec<u8> {
    // At most 254 CPUs of 20 bytes and 240 pins of 8.
    let len = u16::try_from(HEADER_LEN + entries.bytes.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(len));
    bytes.extend_from_slice(b"PCMP");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&[SPEC_VERSION_1_4, 0]);
    bytes.extend_from_slice(b"TESSERA ");
    bytes.extend_from_slice(b"MICROVM     ");
    bytes.extend_from_slice(&[0; 4]); // no OEM table
    bytes.extend_from_slice(&[0; 2]); // of no bytes
    bytes.extend_from_slice(&entries.count.to_le_bytes());
    bytes.extend_from_slice(&low32(LOCAL_APIC));
    bytes.extend_from_slice(&[0; 4]); // no extended table
    bytes
}

#[derive(Default)]
struct Entries {
    bytes: Vec<u8>,
    count: u16,
}

impl Entries {
    fn cpu(&mut self, id: u8) {
        let flags = if id == 0 {
            CPU_ENABLED | CPU_BOOTSTRAP
        } else {
            CPU_ENABLED
        };
        self.bytes.extend_from_slice(&[0, id, APIC_VERSION, flags]);
        self.bytes.extend_from_slice(&CPU_SIGNATURE.to_le_bytes());
        self.bytes.extend_from_slice(&CPU_FEATURES_FPU_APIC.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.count += 1;
    }

    fn isa_bus(&mut self) {
        self.bytes.extend_from_slice(&[1, ISA_BUS]);
        self.bytes.extend_from_slice(b"ISA   ");
        self.count += 1;
    }

    fn io_apic(&mut self, id: u8) {
        self.bytes.extend_from_slice(&[2, id, APIC_VERSION, IO_APIC_ENABLED]);
        self.bytes.extend_from_slice(&low32(IO_APIC));
        self.count += 1;
    }

    fn interrupt(&mut self, entry: [u8; 8]) {
        self.bytes.extend_from_slice(&entry);
        self.count += 1;
    }
}

/// The low half of an address that is known to be below 4 GiB.
fn low32(address: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = address.to_le_bytes();
    [a, b, c, d]
}

/// Makes the sum of all bytes 0 by way of the byte at `at`.
fn close_with_checksum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.get_mut(at) {
        *checksum = checksum.wrapping_sub(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::BASE_MEMORY_END;
    use proptest::prelude::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn floating_pointer_names_the_table() {
        let pointer = &mptable(1, 24).unwrap()[1];
        assert_eq!(pointer.address, 0x9_fc00);
        assert_eq!(pointer.bytes[..10], [b'_', b'M', b'P', b'_', 0, 0xd0, 9, 0, 1, 4]);
        assert_eq!(pointer.bytes[11..], [0; 5]);
        assert_eq!((pointer.bytes.len(), sum(&pointer.bytes)), (16, 0));
    }

    #[test]
    fn mptable_of_two_cpus_and_three_pins_has_these_bytes() {
        let table = &mptable(2, 3).unwrap()[0];
        assert_eq!(table.address, 0x9_d000);
        assert_eq!(&table.bytes[..4], b"PCMP");
        assert_eq!(table.bytes[4..6], 140_u16.to_le_bytes());
        assert_eq!(table.bytes[34..36], 9_u16.to_le_bytes());
        assert_eq!(table.bytes[36..40], 0xfee0_0000_u32.to_le_bytes());
        #[rustfmt::skip]
        let entries = [
            0, 0, 0x14, 3, 0, 6, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 1, 0x14, 1, 0, 6, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            1, 0, b'I', b'S', b'A', b' ', b' ', b' ',
            2, 3, 0x14, 1, 0, 0, 0xc0, 0xfe,
            3, 0, 0, 0, 0, 0, 3, 0,
            3, 0, 0, 0, 0, 1, 3, 1,
            3, 0, 0, 0, 0, 2, 3, 2,
            4, 3, 0, 0, 0, 0, 0, 0,
            4, 1, 0, 0, 0, 0, 0xff, 1,
        ];
        assert_eq!(table.bytes[44..], entries);
        assert_eq!(sum(&table.bytes), 0);
    }

    #[test]
    fn mptable_of_64_cpus_and_24_pins_is_1548_bytes() {
        assert_eq!(mptable(64, 24).unwrap()[0].bytes.len(), 1548);
    }

    #[test]
    fn mptable_of_impossible_counts_is_refused() {
        for cpus in [0, 255, 256, u32::MAX] {
            assert_eq!(
                mptable(cpus, 24),
                Err(BootParamsError::CpuCount { asked: cpus, max: 254 })
            );
        }
        for pins in [0, 241, 256, u32::MAX] {
            assert_eq!(
                mptable(1, pins),
                Err(BootParamsError::PinCount { asked: pins, max: 240 })
            );
        }
    }

    proptest! {
        #[test]
        fn mptable_says_its_own_length_and_ends_before_its_pointer(cpus in 1..=MAX_CPUS, pins in 1..=MAX_PINS) {
            let blobs = mptable(cpus, pins).unwrap();
            let table = &blobs[0];
            let said = usize::from(u16::from_le_bytes([table.bytes[4], table.bytes[5]]));
            prop_assert_eq!(said, table.bytes.len());
            prop_assert_eq!(said, 44 + 20 * cpus as usize + 16 + 8 * pins as usize + 16);
            prop_assert_eq!(sum(&table.bytes), 0);
            prop_assert!(table.region().end() <= BASE_MEMORY_END);
        }
    }
}
