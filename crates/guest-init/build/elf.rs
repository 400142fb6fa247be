//! Is this file what the kernel can start as PID 1 with nothing else in the root?

use std::fmt;

/// What is wrong with a binary.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    NotElf64,
    NotExecutable { e_type: u16 },
    OtherMachine { e_machine: u16, wanted: u16 },
    NeedsInterpreter,
    TooLarge { len: usize },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf64 => write!(f, "it is no 64-bit little-endian ELF file"),
            Self::NotExecutable { e_type } => write!(f, "its ELF type is {e_type}, not an executable"),
            Self::OtherMachine { e_machine, wanted } => write!(f, "its machine is {e_machine}, not {wanted}"),
            Self::NeedsInterpreter => write!(f, "it is not static: it names an interpreter"),
            Self::TooLarge { len } => write!(f, "it has {len} bytes, more than {MAX_LEN}"),
        }
    }
}

/// The guest keeps the whole file in its page cache, and each boot reads it through the share.
pub(crate) const MAX_LEN: usize = 3 * 512 * 1024;

const PT_INTERP: u32 = 3;
const PROGRAM_HEADER_LEN: usize = 56;

/// The ELF machine number of an architecture by Rust's name for it.
pub(crate) fn machine_number(arch: &str) -> Option<u16> {
    match arch {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        _ => None,
    }
}

pub(crate) fn check(file: &[u8], wanted: u16) -> Result<(), Unfit> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err(Unfit::NotElf64);
    }
    let e_type = u16_at(file, 16)?;
    if e_type != 2 && e_type != 3 {
        return Err(Unfit::NotExecutable { e_type });
    }
    let e_machine = u16_at(file, 18)?;
    if e_machine != wanted {
        return Err(Unfit::OtherMachine { e_machine, wanted });
    }
    let table = usize::try_from(u64::from_le_bytes(array_at(file, 32)?)).map_err(|_| Unfit::NotElf64)?;
    for index in 0..usize::from(u16_at(file, 56)?) {
        let header = table.checked_add(index * PROGRAM_HEADER_LEN).ok_or(Unfit::NotElf64)?;
        if u32::from_le_bytes(array_at(file, header)?) == PT_INTERP {
            return Err(Unfit::NeedsInterpreter);
        }
    }
    if file.len() > MAX_LEN {
        return Err(Unfit::TooLarge { len: file.len() });
    }
    Ok(())
}

fn u16_at(file: &[u8], offset: usize) -> Result<u16, Unfit> {
    array_at(file, offset).map(u16::from_le_bytes)
}

fn array_at<const N: usize>(file: &[u8], offset: usize) -> Result<[u8; N], Unfit> {
    let end = offset.checked_add(N).ok_or(Unfit::NotElf64)?;
    file.get(offset..end)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(Unfit::NotElf64)
}
