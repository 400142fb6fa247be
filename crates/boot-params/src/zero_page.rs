//! The zero page: `struct boot_params`, which RSI points at when a kernel is entered in 64-bit mode.

use crate::layout::{COMMAND_LINE, ZERO_PAGE};
use crate::{Blob, BootParamsError, E820Entry, Region, SetupHeader};

/// The most entries that the zero page's memory map holds.
pub const MAX_E820_ENTRIES: usize = 128;

const LEN: usize = 0x1000;
const E820_COUNT: usize = 0x1e8;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const LOADER_TYPE: usize = 0x210;
const LOAD_FLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const KERNEL_ALIGNMENT: usize = 0x230;
const CMDLINE_SIZE: usize = 0x238;
const E820_TABLE: usize = 0x2d0;

const LOADER_UNDEFINED: u8 = 0xff;
const LOADED_HIGH: u8 = 1;
/// What a kernel without header is taken to be aligned to.
const DEFAULT_ALIGNMENT: u32 = 0x100_0000;

/// What the zero page says.
#[derive(Debug, Clone, Copy)]
pub struct ZeroPage<'a> {
    /// The memory map.
    pub e820: &'a [E820Entry],
    /// Length of the command line in bytes, its NUL included.
    pub cmdline_size: u32,
    /// The initial RAM file system.
    pub initramfs: Option<Region>,
    /// The header of a bzImage, which is copied first and then overlaid.
    pub setup_header: Option<&'a SetupHeader>,
}

/// The zero page as bytes in its place.
///
/// # Errors
/// [`BootParamsError::MemoryMapTooLong`] beyond [`MAX_E820_ENTRIES`], [`BootParamsError::InitramfsTooHigh`] if it does not
/// lie below 4 GiB.
pub fn zero_page(config: &ZeroPage<'_>) -> Result<Blob, BootParamsError> {
    let mut page = [0_u8; LEN];
    copy_header(&mut page, config.setup_header);
    put(&mut page, BOOT_FLAG, 0xaa55_u16.to_le_bytes());
    put(&mut page, HEADER_MAGIC, *b"HdrS");
    put(&mut page, LOADER_TYPE, [LOADER_UNDEFINED]);
    page[LOAD_FLAGS] |= LOADED_HIGH;
    if let Some(region) = config.initramfs {
        let (image, size) = below_4_gib(region)?;
        put(&mut page, RAMDISK_IMAGE, image.to_le_bytes());
        put(&mut page, RAMDISK_SIZE, size.to_le_bytes());
    }
    let [a, b, c, d, ..] = COMMAND_LINE.to_le_bytes();
    put(&mut page, CMD_LINE_PTR, [a, b, c, d]);
    put(&mut page, CMDLINE_SIZE, config.cmdline_size.to_le_bytes());
    put_memory_map(&mut page, config.e820)?;
    Ok(Blob::new(ZERO_PAGE, page.to_vec()))
}

fn copy_header(page: &mut [u8; LEN], header: Option<&SetupHeader>) {
    match header {
        Some(header) => {
            let place = page.iter_mut().skip(SetupHeader::FILE_OFFSET);
            for (byte, from) in place.zip(header.bytes()) {
                *byte = *from;
            }
        }
        None => put(page, KERNEL_ALIGNMENT, DEFAULT_ALIGNMENT.to_le_bytes()),
    }
}

fn put_memory_map(page: &mut [u8; LEN], map: &[E820Entry]) -> Result<(), BootParamsError> {
    let too_long = BootParamsError::MemoryMapTooLong {
        entries: map.len(),
        max: MAX_E820_ENTRIES,
    };
    let count = u8::try_from(map.len())
        .ok()
        .filter(|_| map.len() <= MAX_E820_ENTRIES)
        .ok_or(too_long)?;
    put(page, E820_COUNT, [count]);
    for (place, entry) in page[E820_TABLE..].chunks_exact_mut(E820Entry::LEN).zip(map) {
        place.copy_from_slice(&entry.emit());
    }
    Ok(())
}

fn below_4_gib(region: Region) -> Result<(u32, u32), BootParamsError> {
    let too_high = BootParamsError::InitramfsTooHigh {
        address: region.start,
        size: region.len,
    };
    match (u32::try_from(region.start), u32::try_from(region.len)) {
        (Ok(start), Ok(len)) if start.checked_add(len).is_some() => Ok((start, len)),
        _ => Err(too_high),
    }
}

fn put<const N: usize>(page: &mut [u8; LEN], at: usize, bytes: [u8; N]) {
    page[at..at + N].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup_header::tests::file_start;
    use crate::{E820Kind, e820, ram_regions};

    fn config(map: &[E820Entry]) -> ZeroPage<'_> {
        ZeroPage {
            e820: map,
            cmdline_size: 31,
            initramfs: None,
            setup_header: None,
        }
    }

    #[test]
    fn zero_page_without_header_has_these_bytes_and_no_others() {
        let map = e820(&ram_regions(512 << 20).unwrap());
        let blob = zero_page(&config(&map)).unwrap();
        let mut expected = vec![0; 4096];
        expected[0x1e8] = 3;
        expected[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        expected[0x202..0x206].copy_from_slice(b"HdrS");
        expected[0x210..0x212].copy_from_slice(&[0xff, 1]);
        expected[0x228..0x22c].copy_from_slice(&[0, 0, 2, 0]);
        expected[0x230..0x234].copy_from_slice(&[0, 0, 0, 1]);
        expected[0x238] = 31;
        let ranges = [
            (0_u64, 0x9_fc00_u64, 1_u32),
            (0x9_fc00, 0x6_0400, 2),
            (0x10_0000, 0x1ff0_0000, 1),
        ];
        for (i, (start, len, kind)) in ranges.iter().enumerate() {
            let at = 0x2d0 + 20 * i;
            expected[at..at + 8].copy_from_slice(&start.to_le_bytes());
            expected[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
            expected[at + 16..at + 20].copy_from_slice(&kind.to_le_bytes());
        }
        assert_eq!(blob.address, 0x7000);
        assert_eq!(blob.bytes, expected);
    }

    #[test]
    fn zero_page_keeps_the_kernel_header_where_it_has_nothing_to_say() {
        let file = file_start();
        let header = SetupHeader::parse(&file).unwrap();
        let blob = zero_page(&ZeroPage {
            setup_header: Some(&header),
            ..config(&[])
        })
        .unwrap();
        for at in [0x1f1..0x1fe, 0x206..0x210, 0x22c..0x238, 0x23c..0x26c] {
            assert_eq!(blob.bytes[at.clone()], file[at.clone()], "{at:x?}");
        }
        assert_eq!(blob.bytes[0x210..0x212], [0xff, 1]);
        assert_eq!(blob.bytes[0x238..0x23c], 31_u32.to_le_bytes());
        assert_eq!(blob.bytes[0x26c], 0);
    }

    #[test]
    fn zero_page_names_the_initramfs() {
        let initramfs = Some(Region::new(0x37ff_0000, 0x1234));
        let blob = zero_page(&ZeroPage {
            initramfs,
            ..config(&[])
        })
        .unwrap();
        assert_eq!(blob.bytes[0x218..0x220], [0, 0, 0xff, 0x37, 0x34, 0x12, 0, 0]);
    }

    #[test]
    fn zero_page_refuses_an_initramfs_that_reaches_4_gib() {
        for region in [
            Region::new(1 << 32, 1),
            Region::new(0xffff_f000, 0x1000),
            Region::new(0, 1 << 32),
        ] {
            let refused = zero_page(&ZeroPage {
                initramfs: Some(region),
                ..config(&[])
            });
            assert_eq!(
                refused,
                Err(BootParamsError::InitramfsTooHigh {
                    address: region.start,
                    size: region.len
                })
            );
        }
    }

    #[test]
    fn zero_page_takes_128_ranges_and_refuses_129() {
        let entry = E820Entry {
            region: Region::new(7, 9),
            kind: E820Kind::Ram,
        };
        let full = zero_page(&config(&[entry; 128])).unwrap();
        assert_eq!((full.bytes[0x1e8], full.bytes[0x2d0 + 20 * 127]), (128, 7));
        assert_eq!(full.bytes[0x2d0 + 20 * 128..], [0; 0x330]);
        for entries in [129, 256, 384] {
            let refused = zero_page(&config(&vec![entry; entries]));
            assert_eq!(refused, Err(BootParamsError::MemoryMapTooLong { entries, max: 128 }));
        }
    }
}
