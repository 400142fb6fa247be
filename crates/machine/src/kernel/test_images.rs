//! Small kernel images made by hand from the format descriptions.

use std::io::Write;

use super::bundle::KNOWN;

/// The bytes of an image, sparse beyond those that matter.
pub(super) struct Image {
    bytes: Vec<u8>,
    /// Length of the file.
    pub(super) len: u64,
}

impl Image {
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    fn put_words(&mut self, at: usize, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            self.put(at + 8 * i, &word.to_le_bytes());
        }
    }
}

/// A file with this content.
pub(super) fn file(image: &Image) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let present = image.bytes.len().min(usize::try_from(image.len).unwrap());
    file.write_all(&image.bytes[..present]).unwrap();
    file.as_file().set_len(image.len).unwrap();
    file
}

fn elf(kind: u16, entry: u64) -> Image {
    let mut image = Image {
        bytes: Vec::new(),
        len: 0,
    };
    image.put(0, b"\x7fELF\x02\x01\x01");
    image.put(16, &kind.to_le_bytes());
    image.put(18, &62_u16.to_le_bytes());
    image.put(20, &1_u32.to_le_bytes());
    image.put_words(24, &[entry, 0, 0]);
    image.put(48, &[0; 4]);
    image.put(52, &64_u16.to_le_bytes());
    image
}

/// A `vmlinux` with one segment of 0x100 bytes at 16 MiB, 128 KiB in memory, and a PVH note behind it.
pub(super) fn vmlinux() -> Image {
    let mut image = elf(2, 0x100_0000);
    image.put_words(32, &[64]);
    image.put(54, &56_u16.to_le_bytes());
    image.put(56, &2_u16.to_le_bytes());
    image.put(60, &[0; 4]);
    image.put(64, &1_u32.to_le_bytes());
    image.put_words(72, &[0x200, 0xffff_ffff_8100_0000, 0x100_0000, 0x100, 0x2_0000, 0x1000]);
    image.put(120, &4_u32.to_le_bytes());
    image.put_words(128, &[0x300, 0, 0, 0x14, 0x14, 4]);
    image.put(0x200, b"CODE");
    image.put(0x300, b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x40\0\0\x01");
    image
}

/// A `bzImage` with one set-up sector; the kernel that follows it begins with "CODE".
pub(super) fn bzimage() -> Image {
    let mut image = Image {
        bytes: Vec::new(),
        len: 0,
    };
    image.put(0x1f1, &[2]);
    image.put(0x1f4, &0x10_u32.to_le_bytes());
    image.put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    image.put(0x202, b"HdrS\x0f\x02");
    image.put(0x211, &[1]);
    image.put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    image.put(0x236, &3_u16.to_le_bytes());
    image.put(0x238, &2047_u32.to_le_bytes());
    image.put_words(0x258, &[0x100_0000]);
    image.put(0x260, &0x20_0000_u32.to_le_bytes());
    image.put(0x600, b"CODE");
    image.put(0x6ff, &[0]);
    image
}

const SYMBOLS: usize = 0x200;
const STRINGS: usize = 0x240;
const BUILD_ID: usize = 0x260;
const SECTIONS: usize = 0x300;

/// A shared library as the known bundle is one: sections null, symbols, strings, note, data.
pub(super) fn bundle() -> Image {
    let mut image = elf(3, 0);
    image.put_words(40, &[SECTIONS as u64]);
    image.put(58, &64_u16.to_le_bytes());
    image.put(60, &5_u16.to_le_bytes());
    let section = |image: &mut Image, index: usize, kind: u32, addr: u64, offset: u64, len: u64, link: u32| {
        let at = SECTIONS + 64 * index;
        image.put(at + 4, &kind.to_le_bytes());
        image.put_words(at + 16, &[addr, offset, len]);
        image.put(at + 40, &link.to_le_bytes());
        image.put(at + 63, &[0]);
    };
    section(&mut image, 1, 11, 0, SYMBOLS as u64, 48, 2);
    section(&mut image, 2, 3, 0, STRINGS as u64, 15, 0);
    section(&mut image, 3, 7, 0, BUILD_ID as u64, 36, 0);
    section(&mut image, 4, 1, 0x1_0000, 0x1_0000, KNOWN[0].symbol_len, 0);
    image.put(SYMBOLS + 24, &1_u32.to_le_bytes());
    image.put(SYMBOLS + 30, &4_u16.to_le_bytes());
    image.set_symbol(0x1_0000, KNOWN[0].symbol_len);
    image.rename_symbol(b"KERNEL_BUNDLE");
    image.set_build_id(&KNOWN[0].build_id);
    image.len = 0x1_0000 + KNOWN[0].symbol_len;
    image
}

impl Image {
    pub(super) fn set_symbol(&mut self, value: u64, size: u64) {
        self.put_words(SYMBOLS + 32, &[value, size]);
    }

    pub(super) fn rename_symbol(&mut self, name: &[u8; 13]) {
        self.put(STRINGS + 1, name);
        self.put(STRINGS + 14, &[0]);
    }

    /// An id of no bytes makes it a note of another kind.
    pub(super) fn set_build_id(&mut self, id: &[u8]) {
        let kind = if id.is_empty() { 9 } else { 3 };
        self.put(BUILD_ID, &[4, 0, 0, 0, 20, 0, 0, 0, kind, 0, 0, 0]);
        self.put(BUILD_ID + 12, b"GNU\0");
        self.put(BUILD_ID + 16, id);
    }
}
