//! Reads ELF64 files. Each offset and length is taken from the file, so each is checked before use (CVE-2022-23523 was a
//! loader that did not).

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::KernelErrorReason;

pub(super) const MAGIC: &[u8] = b"\x7fELF";

pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_NOTE: u32 = 4;
pub(super) const SHT_NOTE: u32 = 7;
pub(super) const SHT_NOBITS: u32 = 8;
pub(super) const SHT_DYNSYM: u32 = 11;

const HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
const SECTION_HEADER_LEN: usize = 64;
const SYMBOL_LEN: usize = 24;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;

/// The most bytes that are read of a table, a string or a note. Those of a kernel are far smaller.
const TABLE_MAX: u64 = 1 << 20;

/// An ELF file for x86_64 whose header is sound.
pub(super) struct Elf<'a> {
    file: &'a File,
    len: u64,
    pub(super) entry: u64,
    kind: u16,
    programs: Table,
    sections: Table,
}

struct Table {
    offset: u64,
    count: u16,
}

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) kind: u32,
    pub(super) offset: u64,
    pub(super) paddr: u64,
    pub(super) file_len: u64,
    pub(super) mem_len: u64,
}

/// A section header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    pub(super) kind: u32,
    pub(super) addr: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) link: u32,
}

/// A symbol: the section it is in, its address and its size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    pub(super) section: u16,
    pub(super) value: u64,
    pub(super) size: u64,
}

impl<'a> Elf<'a> {
    /// Reads the header of a file of `len` bytes that begins with [`MAGIC`].
    pub(super) fn open(file: &'a File, len: u64) -> Result<Self, KernelErrorReason> {
        let header = read(file, len, 0, HEADER_LEN as u64, "its ELF header is cut short")?;
        let fields = Fields(&header);
        if fields.u8(4) != CLASS_64 || fields.u8(5) != LITTLE_ENDIAN || fields.u16(18) != MACHINE_X86_64 {
            return Err(KernelErrorReason::OtherMachine {
                machine: fields.u16(18),
            });
        }
        let programs = Table {
            offset: fields.u64(32),
            count: fields.u16(56),
        };
        let sections = Table {
            offset: fields.u64(40),
            count: fields.u16(60),
        };
        if programs.count > 0 && usize::from(fields.u16(54)) != PROGRAM_HEADER_LEN {
            return Err(KernelErrorReason::Damaged("its program headers have an unknown size"));
        }
        if sections.count > 0 && usize::from(fields.u16(58)) != SECTION_HEADER_LEN {
            return Err(KernelErrorReason::Damaged("its section headers have an unknown size"));
        }
        Ok(Self {
            file,
            len,
            entry: fields.u64(24),
            kind: fields.u16(16),
            programs,
            sections,
        })
    }

    pub(super) fn is_shared_object(&self) -> bool {
        self.kind == TYPE_SHARED
    }

    pub(super) fn is_executable(&self) -> bool {
        self.kind == TYPE_EXECUTABLE
    }

    /// The program headers; the file range of each is inside the file.
    pub(super) fn segments(&self) -> Result<Vec<Segment>, KernelErrorReason> {
        let bytes = self.table(
            &self.programs,
            PROGRAM_HEADER_LEN,
            "its program headers are outside the file",
        )?;
        let segments = bytes.chunks_exact(PROGRAM_HEADER_LEN).map(|bytes| {
            let fields = Fields(bytes);
            Segment {
                kind: fields.u32(0),
                offset: fields.u64(8),
                paddr: fields.u64(24),
                file_len: fields.u64(32),
                mem_len: fields.u64(40),
            }
        });
        let segments: Vec<_> = segments.collect();
        match segments
            .iter()
            .all(|segment| self.has(segment.offset, segment.file_len))
        {
            true => Ok(segments),
            false => Err(KernelErrorReason::Damaged("a segment is outside the file")),
        }
    }

    /// The section headers; the file range of each that has one is inside the file.
    pub(super) fn sections(&self) -> Result<Vec<Section>, KernelErrorReason> {
        let bytes = self.table(
            &self.sections,
            SECTION_HEADER_LEN,
            "its section headers are outside the file",
        )?;
        let sections = bytes.chunks_exact(SECTION_HEADER_LEN).map(|bytes| {
            let fields = Fields(bytes);
            Section {
                kind: fields.u32(4),
                addr: fields.u64(16),
                offset: fields.u64(24),
                len: fields.u64(32),
                link: fields.u32(40),
            }
        });
        let sections: Vec<_> = sections.collect();
        match sections
            .iter()
            .all(|section| section.kind == SHT_NOBITS || self.has(section.offset, section.len))
        {
            true => Ok(sections),
            false => Err(KernelErrorReason::Damaged("a section is outside the file")),
        }
    }

    /// The dynamic symbol called `name`.
    pub(super) fn dynamic_symbol(&self, sections: &[Section], name: &str) -> Result<Option<Symbol>, KernelErrorReason> {
        for table in sections.iter().filter(|section| section.kind == SHT_DYNSYM) {
            let strings = usize::try_from(table.link).ok().and_then(|link| sections.get(link));
            let strings = strings.ok_or(KernelErrorReason::Damaged("its symbol table has no names"))?;
            let names = self.read(strings.offset, strings.len, "its symbol names are too long")?;
            let symbols = self.read(table.offset, table.len, "its symbol table is too long")?;
            let found = symbols
                .chunks_exact(SYMBOL_LEN)
                .map(Fields)
                .find(|symbol| is_named(&names, symbol.u32(0), name));
            if let Some(symbol) = found {
                return Ok(Some(Symbol {
                    section: symbol.u16(6),
                    value: symbol.u64(8),
                    size: symbol.u64(16),
                }));
            }
        }
        Ok(None)
    }

    /// The first note of this owner and kind in a range of the file.
    pub(super) fn note(
        &self,
        offset: u64,
        len: u64,
        owner: &[u8],
        kind: u32,
    ) -> Result<Option<Vec<u8>>, KernelErrorReason> {
        let bytes = self.read(offset, len, "its notes are too long")?;
        Ok(find_note(&bytes, owner, kind).map(<[u8]>::to_vec))
    }

    /// Whether the file has this range.
    pub(super) fn has(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    fn table(&self, table: &Table, entry_len: usize, defect: &'static str) -> Result<Vec<u8>, KernelErrorReason> {
        self.read(table.offset, u64::from(table.count) * entry_len as u64, defect)
    }

    fn read(&self, offset: u64, len: u64, defect: &'static str) -> Result<Vec<u8>, KernelErrorReason> {
        read(self.file, self.len, offset, len, defect)
    }
}

fn read(file: &File, file_len: u64, offset: u64, len: u64, defect: &'static str) -> Result<Vec<u8>, KernelErrorReason> {
    let inside = offset.checked_add(len).is_some_and(|end| end <= file_len);
    let len = usize::try_from(len).ok().filter(|_| inside && len <= TABLE_MAX);
    let mut bytes = vec![0; len.ok_or(KernelErrorReason::Damaged(defect))?];
    file.read_exact_at(&mut bytes, offset)
        .map_err(KernelErrorReason::Read)?;
    Ok(bytes)
}

fn is_named(names: &[u8], at: u32, name: &str) -> bool {
    let rest = usize::try_from(at)
        .ok()
        .and_then(|at| names.get(at..))
        .and_then(|rest| rest.strip_prefix(name.as_bytes()));
    rest.is_some_and(|rest| rest.first() == Some(&0))
}

/// The first note of this owner and kind. Notes are a header of three words, the owner's name and the content, the latter two
/// filled up to four bytes.
fn find_note<'a>(mut bytes: &'a [u8], owner: &[u8], kind: u32) -> Option<&'a [u8]> {
    loop {
        let header = Fields(bytes.get(..12)?);
        let name_len = usize::try_from(header.u32(0)).ok()?;
        let content_len = usize::try_from(header.u32(4)).ok()?;
        let content_at = 12_usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let name = bytes.get(12..)?.get(..name_len)?;
        let content = bytes.get(content_at..)?.get(..content_len)?;
        if name == owner && header.u32(8) == kind {
            return Some(content);
        }
        bytes = bytes.get(content_at.checked_add(content_len.checked_next_multiple_of(4)?)?..)?;
    }
}

/// Little-endian fields by offset; what is beyond the end is 0.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.u8(at), self.u8(at + 1)])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [owner.len(), content.len(), kind as usize] {
            let word = u32::try_from(word).unwrap();
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for part in [owner, content] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn note_is_found_behind_others() {
        let bytes = [
            note(b"GNU\0", 18, b"no"),
            note(b"Xen\0", 6, b"linux"),
            note(b"Xen\0", 18, &[1, 2, 3, 4]),
        ]
        .concat();
        assert_eq!(find_note(&bytes, b"Xen\0", 18), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find_note(&bytes, b"Xen\0", 7), None);
    }

    #[test]
    fn note_cut_at_any_length_is_not_found() {
        let bytes = note(b"Xen\0", 18, &[1, 2, 3, 4]);
        for len in 0..bytes.len() {
            assert_eq!(find_note(&bytes[..len], b"Xen\0", 18), None);
        }
    }

    #[test]
    fn note_with_lengths_that_wrap_is_not_found() {
        for (name_len, content_len) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
            let mut bytes = note(b"Xen\0", 18, &[0; 4]);
            bytes[..4].copy_from_slice(&name_len.to_le_bytes());
            bytes[4..8].copy_from_slice(&content_len.to_le_bytes());
            assert_eq!(find_note(&bytes, b"Xen\0", 18), None);
        }
    }

    #[test]
    fn symbol_names_are_compared_whole() {
        let names = b"\0KERNEL_BUNDLE_2\0KERNEL_BUNDLE\0KERNEL_BUNDLE";
        assert!(!is_named(names, 1, "KERNEL_BUNDLE"));
        assert!(is_named(names, 17, "KERNEL_BUNDLE"));
        assert!(!is_named(names, 31, "KERNEL_BUNDLE"), "not terminated");
        assert!(!is_named(names, u32::MAX, "KERNEL_BUNDLE"));
    }

    proptest! {
        #[test]
        fn notes_of_any_bytes_are_walked_to_an_end(bytes in proptest::collection::vec(0_u8..20, 0..200)) {
            let _ = find_note(&bytes, b"Xen\0", 18);
        }
    }
}
