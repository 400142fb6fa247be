//! What a bzImage says about itself: the `setup_header` of the Linux boot protocol.

use crate::{BootParamsError, Region};

/// Bytes from the start of a bzImage that [`SetupHeader::parse`] wants: the real-mode boot sector and the header after it.
pub const WANTED: usize = 0x290;

const START: usize = 0x1f1;
const SECTOR: u64 = 512;
const PARAGRAPH: u64 = 16;
const MIN_VERSION: u16 = 0x020c;
const XLF_KERNEL_64: u16 = 1;
const DEFAULT_SETUP_SECTORS: u8 = 4;
const ENTRY_64: u64 = 0x200;

/// A checked header. The getters give the fields that matter to a loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupHeader {
    /// The file's bytes from 0x1f1 to the end of the header.
    bytes: Vec<u8>,
}

impl SetupHeader {
    /// Reads the header out of the first [`WANTED`] bytes of a file.
    ///
    /// # Errors
    /// [`BootParamsError::NotBzImage`] for other or cut files, [`BootParamsError::NoLongModeEntry`] for kernels that cannot be
    /// entered in 64-bit mode.
    pub fn parse(file_start: &[u8]) -> Result<SetupHeader, BootParamsError> {
        if file_start.get(0x1fe..0x200) != Some(&[0x55, 0xaa]) || file_start.get(0x202..0x206) != Some(b"HdrS") {
            return Err(BootParamsError::NotBzImage("its magic numbers are missing"));
        }
        let jump = file_start.get(0x201).copied().unwrap_or(0);
        let end = 0x202 + usize::from(jump);
        if end > WANTED {
            return Err(BootParamsError::NotBzImage(
                "its header is longer than the zero page has room for",
            ));
        }
        let bytes = file_start
            .get(START..end)
            .ok_or(BootParamsError::NotBzImage("its header is cut short"))?
            .to_vec();
        let header = SetupHeader { bytes };
        let version = header.version();
        if version < MIN_VERSION || header.u16_at(0x236) & XLF_KERNEL_64 == 0 {
            return Err(BootParamsError::NoLongModeEntry { version });
        }
        Ok(header)
    }

    /// Version of the boot protocol, 0x020f for 2.15.
    pub fn version(&self) -> u16 {
        self.u16_at(0x206)
    }

    /// Where in the file the part that is loaded begins, bytes.
    pub fn kernel_offset(&self) -> u64 {
        let sectors = match self.u8_at(0x1f1) {
            0 => DEFAULT_SETUP_SECTORS,
            sectors => sectors,
        };
        (u64::from(sectors) + 1) * SECTOR
    }

    /// Bytes of the part that is loaded, as the header says; a file may have more, such as a signature.
    pub fn kernel_len(&self) -> u64 {
        u64::from(self.u32_at(0x1f4)) * PARAGRAPH
    }

    /// The longest command line, in bytes without its NUL.
    pub fn cmdline_size(&self) -> u32 {
        self.u32_at(0x238)
    }

    /// The last address that the initial RAM file system may take up.
    pub fn initrd_addr_max(&self) -> u32 {
        self.u32_at(0x22c)
    }

    /// Where the kernel likes to be loaded, a guest physical address.
    pub fn pref_address(&self) -> u64 {
        u64::from(self.u32_at(0x258)) | u64::from(self.u32_at(0x25c)) << 32
    }

    /// Memory the kernel needs from its load address on until it reads the memory map, bytes.
    pub fn init_size(&self) -> u32 {
        self.u32_at(0x260)
    }

    /// The memory the kernel uses when loaded at `load`, at least the `loaded` bytes of its file.
    pub fn footprint(&self, load: u64, loaded: u64) -> Region {
        Region::new(load, loaded.max(u64::from(self.init_size())))
    }

    /// The 64-bit entry point of a kernel loaded at `load`; `None` if the address wraps.
    pub fn entry(&self, load: u64) -> Option<u64> {
        load.checked_add(ENTRY_64)
    }

    /// The header's bytes, which stand at [`FILE_OFFSET`](Self::FILE_OFFSET) in the file and in the zero page.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the header begins, in the file as in the zero page.
    pub const FILE_OFFSET: usize = START;

    fn u8_at(&self, file_offset: usize) -> u8 {
        file_offset
            .checked_sub(START)
            .and_then(|at| self.bytes.get(at))
            .copied()
            .unwrap_or(0)
    }

    fn u16_at(&self, file_offset: usize) -> u16 {
        u16::from_le_bytes([self.u8_at(file_offset), self.u8_at(file_offset + 1)])
    }

    fn u32_at(&self, file_offset: usize) -> u32 {
        u32::from(self.u16_at(file_offset)) | u32::from(self.u16_at(file_offset + 2)) << 16
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The start of a bzImage of boot protocol 2.15 with 7 set-up sectors.
    pub(crate) fn file_start() -> Vec<u8> {
        let mut file = vec![0; 0x400];
        file[0x1f1] = 7;
        file[0x1f4..0x1f8].copy_from_slice(&0x10_0000_u32.to_le_bytes());
        file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        file[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]);
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        file[0x211] = 1;
        file[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        file[0x236..0x238].copy_from_slice(&3_u16.to_le_bytes());
        file[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes());
        file[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
        file[0x260..0x264].copy_from_slice(&0x20_0000_u32.to_le_bytes());
        file
    }

    #[test]
    fn header_fields_are_where_the_protocol_says() {
        let header = SetupHeader::parse(&file_start()).unwrap();
        assert_eq!(
            (header.version(), header.kernel_offset(), header.kernel_len()),
            (0x020f, 8 * 512, 0x100_0000)
        );
        assert_eq!((header.cmdline_size(), header.initrd_addr_max()), (2047, 0x7fff_ffff));
        assert_eq!((header.pref_address(), header.init_size()), (0x100_0000, 0x20_0000));
        assert_eq!(header.bytes().len(), 0x26c - 0x1f1);
        assert_eq!(header.entry(0x100_0000), Some(0x100_0200));
        assert_eq!(header.entry(u64::MAX), None);
    }

    #[test]
    fn header_without_sector_count_means_four() {
        let mut file = file_start();
        file[0x1f1] = 0;
        assert_eq!(SetupHeader::parse(&file).unwrap().kernel_offset(), 5 * 512);
    }

    #[test]
    fn footprint_is_the_larger_of_file_and_init_size() {
        let header = SetupHeader::parse(&file_start()).unwrap();
        assert_eq!(header.footprint(0x100_0000, 5), Region::new(0x100_0000, 0x20_0000));
        assert_eq!(header.footprint(0x100_0000, 0x30_0000).len, 0x30_0000);
    }

    #[test]
    fn header_cut_at_any_length_is_refused() {
        let file = file_start();
        for len in 0..0x26c {
            assert!(
                matches!(SetupHeader::parse(&file[..len]), Err(BootParamsError::NotBzImage(_))),
                "{len:#x}"
            );
        }
        assert!(SetupHeader::parse(&file[..0x26c]).is_ok());
    }

    #[test]
    fn header_that_would_cover_the_memory_map_is_refused() {
        let mut file = file_start();
        file[0x201] = 0x8f;
        assert!(matches!(SetupHeader::parse(&file), Err(BootParamsError::NotBzImage(_))));
    }

    #[test]
    fn header_of_an_old_or_32_bit_kernel_is_refused() {
        let mut old = file_start();
        old[0x206] = 0x0b;
        assert_eq!(
            SetupHeader::parse(&old),
            Err(BootParamsError::NoLongModeEntry { version: 0x020b })
        );
        let mut narrow = file_start();
        narrow[0x236] = 2;
        assert_eq!(
            SetupHeader::parse(&narrow),
            Err(BootParamsError::NoLongModeEntry { version: 0x020f })
        );
    }
}
