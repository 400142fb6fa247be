//! One named test for each defect that a system of this kind had and this crate must not have.

use std::io::Write;

use machine::kernel::{KernelErrorReason, KernelImage};

/// An ELF header for x86_64 and the program header that follows it, of a file of 0x200 bytes.
fn elf(program_headers: u64, offset: u64, file_len: u64) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..20].copy_from_slice(&[2, 0, 62, 0]);
    file[24..32].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    file[32..40].copy_from_slice(&program_headers.to_le_bytes());
    file[54..58].copy_from_slice(&[56, 0, 1, 0]);
    file[64] = 1;
    for (at, field) in [(72, offset), (88, 0x100_0000), (96, file_len), (104, 1 << 20)] {
        file[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    file
}

fn open(bytes: &[u8]) -> Result<KernelImage, KernelErrorReason> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    KernelImage::open(file.path()).map_err(|error| error.reason)
}

/// CVE-2022-23523: linux-loader took offsets from ELF headers as they were and read beyond the image.
#[test]
fn cve_2022_23523_elf_offsets_outside_the_file_are_refused() {
    assert!(open(&elf(64, 0x100, 0x100)).is_ok());
    let cases = [
        (0x1c9, 0x100, 0x100),
        (u64::MAX, 0x100, 0x100),
        (64, 0x101, 0x100),
        (64, u64::MAX, 0x100),
        (64, 0x100, u64::MAX),
        (64, 0x200, 1),
    ];
    for (program_headers, offset, len) in cases {
        let opened = open(&elf(program_headers, offset, len));
        assert!(
            matches!(opened, Err(KernelErrorReason::Damaged(_))),
            "{program_headers:#x} {offset:#x} {len:#x}"
        );
    }
}
