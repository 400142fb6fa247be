//! A guest of a few instructions, for any `/dev/kvm`: an ELF image with a PVH entry, so it needs no paging.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use machine::kernel::KernelImage;
use machine::{Exit, Handle, HostStdio, Limits, Machine, Resources, Share, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Where the code lies and is entered.
const LOAD: u32 = 0x10_0000;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PVH_NOTE: u32 = 18;

/// How long a test waits for what takes no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// So long after it has written a byte, which makes its vCPU leave it, a guest is entered again.
const ENTERED_AGAIN: Duration = Duration::from_millis(50);

/// Resets the machine through the i8042: `mov al, 0xfe; out 0x64, al; hlt; jmp $`.
pub(crate) const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfe];
/// Says so and runs for ever: `mov dx, 0x3f8; out dx, al; jmp $`.
pub(crate) const SPIN: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfe];
/// Says so again and again: `mov dx, 0x3f8; out dx, al; jmp -3`.
pub(crate) const SPEAK: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfd];
/// Says so and halts for ever, with interrupts off: `mov dx, 0x3f8; out dx, al; cli; hlt; jmp -3`.
pub(crate) const HALT: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xee, 0xfa, 0xf4, 0xeb, 0xfd];
/// Faults where there is no handler: `ud2`.
pub(crate) const FAULT: &[u8] = &[0x0f, 0x0b];

/// Whether there is a KVM to test with; says so if not.
pub(crate) fn kvm_is_there(test: &str) -> bool {
    let there = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !there {
        eprintln!("{test}: skipped, since /dev/kvm cannot be opened");
    }
    there
}

/// A kernel file, and a root folder beside it.
pub(crate) struct Guest {
    folder: tempfile::TempDir,
}

impl Guest {
    pub(crate) fn new(code: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        File::create(folder.path().join("vmlinux"))
            .unwrap()
            .write_all(&elf(code))
            .unwrap();
        Self { folder }
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.path().join("vmlinux")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn spec(&self) -> Spec {
        Spec {
            mem_mib: 32,
            root: Some(Share::root(self.root())),
            ..Spec::default()
        }
    }

    pub(crate) fn build(&self) -> Machine {
        self.build_as(&self.spec())
    }

    pub(crate) fn build_as(&self, spec: &Spec) -> Machine {
        self.build_with(spec, HostStdio::default())
    }

    fn build_with(&self, spec: &Spec, stdio: HostStdio) -> Machine {
        let kernel = open(&self.kernel());
        let plan = machine::plan(spec, &Limits::new(kernel.traits().clone())).unwrap();
        machine::build(
            &plan,
            Resources {
                kernel,
                initramfs: None,
                stdio,
            },
        )
        .unwrap()
    }

    /// Runs it with so many vCPUs on a thread of its own, and waits until it says at COM1 that it runs.
    pub(crate) fn start(&self, cpus: u32) -> Running {
        let (mut com1, stderr) = std::io::pipe().unwrap();
        let stdio = HostStdio {
            stderr: Some(stderr.into()),
            ..HostStdio::default()
        };
        let machine = self.build_with(&Spec { cpus, ..self.spec() }, stdio);
        let handle = machine.handle();
        let (ended, exit) = channel();
        thread::spawn(move || ended.send(machine.run().unwrap()));
        com1.read_exact(&mut [0]).unwrap();
        thread::sleep(ENTERED_AGAIN);
        Running { handle, com1, exit }
    }
}

/// A machine whose guest has said that it runs.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    com1: PipeReader,
    exit: Receiver<Exit>,
}

impl Running {
    /// Pauses it, which is to be done soon.
    #[track_caller]
    pub(crate) fn pause(&self) {
        let (handle, (done, paused)) = (self.handle.clone(), channel());
        thread::spawn(move || {
            handle.pause();
            done.send(())
        });
        paused.recv_timeout(PATIENCE).expect("the machine does not pause");
    }

    /// How it ends, which it is to do soon.
    #[track_caller]
    pub(crate) fn exit(self) -> Exit {
        self.exit.recv_timeout(PATIENCE).expect("the machine does not end")
    }

    /// Whether it says anything at COM1 in this time; all that it has said is taken.
    pub(crate) fn speaks_within(&mut self, time: Duration) -> bool {
        let time = Timespec::try_from(time).unwrap();
        let mut fds = [PollFd::new(&self.com1, PollFlags::IN)];
        let speaks = poll(&mut fds, Some(&time)).unwrap() > 0;
        speaks && self.com1.read(&mut [0; 1 << 16]).unwrap() > 0
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.exit.try_recv().is_ok()
    }
}

pub(crate) fn open(kernel: &Path) -> KernelImage {
    KernelImage::open(kernel).unwrap()
}

/// An ELF executable with one loaded segment and the note that tells its PVH entry.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let note: Vec<u8> = [4u32, 4, PVH_NOTE]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .chain(*b"Xen\0")
        .chain(LOAD.to_le_bytes())
        .collect();
    let code_offset = HEADERS + note.len() as u64;
    let mut file = vec![];
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    file.extend([0; 8]);
    // ET_EXEC for EM_X86_64, version 1.
    file.extend(
        2u16.to_le_bytes()
            .into_iter()
            .chain(62u16.to_le_bytes())
            .chain(1u32.to_le_bytes()),
    );
    // Entry; program headers right behind this header; no section headers.
    file.extend([u64::from(LOAD), 64, 0].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    // Sizes of this header and of a program header, and that there are two; then the same of section headers.
    file.extend([64u16, 56, 2, 64, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
    program_header(&mut file, 1, code_offset, u64::from(LOAD), code.len() as u64);
    program_header(&mut file, 4, HEADERS, 0, note.len() as u64);
    file.extend(note);
    file.extend(code);
    file
}

fn program_header(file: &mut Vec<u8>, kind: u32, offset: u64, address: u64, len: u64) {
    file.extend(kind.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    file.extend(
        [offset, address, address, len, len, 4]
            .iter()
            .flat_map(|v| v.to_le_bytes()),
    );
}

/// Instructions of 32-bit code.
#[derive(Default)]
pub(crate) struct Code(pub(crate) Vec<u8>);

impl Code {
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `mov dword [address], value`
    pub(crate) fn store(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xc7, 0x05])
            .bytes(&address.to_le_bytes())
            .bytes(&value.to_le_bytes())
    }

    /// `mov al, value; out port, al`
    pub(crate) fn out(self, port: u8, value: u8) -> Self {
        self.bytes(&[0xb0, value, 0xe6, port])
    }

    /// `jmp $` is for the moment that the reset takes.
    pub(crate) fn reset(self) -> Self {
        self.out(0x64, 0xfe).bytes(&[0xeb, 0xfe])
    }

    /// Takes the device whose registers are at `base`, without a queue, as far as DRIVER_OK (virtio 1.3, 3.1.1); faults when the
    /// device then needs a reset: `cmp dword [status], 15; je +2; ud2`.
    pub(crate) fn take_device(self, base: u32) -> Self {
        const DRIVER_FEATURES: u32 = 0x20;
        const DRIVER_FEATURES_SEL: u32 = 0x24;
        const STATUS: u32 = 0x70;
        self.store(base + STATUS, 1)
            .store(base + STATUS, 3)
            .store(base + DRIVER_FEATURES_SEL, 1)
            .store(base + DRIVER_FEATURES, 1)
            .store(base + STATUS, 11)
            .store(base + STATUS, 15)
            .bytes(&[0x81, 0x3d])
            .bytes(&(base + STATUS).to_le_bytes())
            .bytes(&15_u32.to_le_bytes())
            .bytes(&[0x74, 0x02, 0x0f, 0x0b])
    }
}
