//! Kernels of a few instructions, and computers without KVM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `mov al, 0xfe; out 0x64, al; jmp $`: resets the machine through the i8042, as Linux does at its end.
pub(crate) const RESETS: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe];
/// `jmp $`: never ends.
pub(crate) const SPINS: &[u8] = &[0xeb, 0xfe];
/// `ud2`: faults, and has no handler for it.
pub(crate) const FAULTS: &[u8] = &[0x0f, 0x0b];

const LOAD_ADDRESS: u32 = 0x10_0000;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: a 32-bit entry without paging.
const PVH_ENTRY_NOTE: u32 = 18;

/// Puts a root folder and a kernel of these instructions into the folder.
pub(crate) fn lay_out(folder: &Path, code: &[u8]) {
    fs::create_dir(folder.join("root")).expect("a temporary folder");
    fs::write(folder.join("vmlinux"), vmlinux(code)).expect("a temporary folder");
}

/// The file has a header, two program headers, the note and the code.
fn vmlinux(code: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    [4, 4, PVH_ENTRY_NOTE].iter().for_each(|word| put32(&mut note, *word));
    note.extend(b"Xen\0");
    put32(&mut note, LOAD_ADDRESS);

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Executable, x86_64, version 1; entry; program headers at 64, no sections; no flags; sizes and counts.
    [2u16, 62, 1, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    [u64::from(LOAD_ADDRESS), 64, 0]
        .iter()
        .for_each(|long| file.extend(long.to_le_bytes()));
    put32(&mut file, 0);
    [64u16, 56, 2, 64, 0, 0]
        .iter()
        .for_each(|half| file.extend(half.to_le_bytes()));

    let note_at = 64 + 2 * 56;
    let code_at = note_at + note.len() as u64;
    program_header(&mut file, PT_NOTE, note_at, 0, note.len() as u64);
    program_header(&mut file, PT_LOAD, code_at, u64::from(LOAD_ADDRESS), code.len() as u64);
    file.extend(note);
    file.extend(code);
    file
}

fn program_header(file: &mut Vec<u8>, kind: u32, offset: u64, address: u64, len: u64) {
    put32(file, kind);
    put32(file, 7);
    [offset, address, address, len, len, 4]
        .iter()
        .for_each(|long| file.extend(long.to_le_bytes()));
}

fn put32(bytes: &mut Vec<u8>, word: u32) {
    bytes.extend(word.to_le_bytes());
}

/// Whether `/dev/kvm` can be used here; says that the test is skipped if not.
pub(crate) fn has_kvm(test: &str) -> bool {
    let open = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    open.inspect_err(|error| eprintln!("{test} is skipped, as /dev/kvm cannot be opened: {error}"))
        .is_ok()
}

/// What `/dev/kvm` is on a computer that a test wants.
#[derive(Clone, Copy)]
pub(crate) enum DevKvm {
    Missing,
    Forbidden,
}

/// A command that runs the program on a computer with another `/dev`: in a mount namespace, and without the capabilities that
/// open every file. `None`, with a word about it, where namespaces cannot be made.
pub(crate) fn on_computer_with(kvm: DevKvm, test: &str) -> Option<Command> {
    let script = match kvm {
        DevKvm::Missing => "mount -t tmpfs none /dev",
        DevKvm::Forbidden => "mount -t tmpfs none /dev && : > /dev/kvm && chmod 000 /dev/kvm",
    };
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]);
        command
    };
    let probe = unshare(&format!("{script} && setpriv --bounding-set=-all --inh-caps=-all true")).output();
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        eprintln!("{test} is skipped, as namespaces cannot be made here: {probe:?}");
        return None;
    }
    let mut command = unshare(&format!(
        "{script} && exec setpriv --bounding-set=-all --inh-caps=-all \"$@\""
    ));
    command.arg(program());
    Some(command)
}

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tessera"))
}
