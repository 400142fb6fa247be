//! The outer host: an emulated machine with AMD-V, so that KVM in it boots a guest on any machine.
//!
//! It is Debian's cloud kernel and one archive with busybox, the modules of KVM, our programs, the guest kernel and the
//! guest's root folder. The first serial port takes the kernel's messages into a file, the second one is what the user
//! sees.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::archive::Archive;
use crate::lines::Lines;
use crate::setup::Parts;
use crate::{debian, guest_root, paths};

const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// In the order of their dependencies. Shares need fuse and overlay, nets need tun.
const MODULES: [&str; 6] = [
    "virt/lib/irqbypass",
    "arch/x86/kvm/kvm",
    "arch/x86/kvm/kvm-amd",
    "fs/fuse/fuse",
    "fs/overlayfs/overlay",
    "drivers/net/tun",
];
/// What a disk needs besides, in the order of their dependencies; ext4 is built in.
const DISK_MODULES: [&str; 6] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
];
/// Room for a guest of 4 GiB.
pub(crate) const MEMORY_MIB: u64 = 6144;
/// How long a program that has much to do at a time may say nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12 * 60);
const STATUS_LINE: &str = "outer host: status ";

/// An emulated machine that can be started.
pub(crate) struct OuterHost {
    vmlinuz: PathBuf,
    /// The folder of the kernel's modules.
    tree: PathBuf,
    modules: Vec<&'static str>,
    busybox: PathBuf,
    disk: Option<PathBuf>,
}

/// A timer's interrupt that comes at the moment of a guest's exit is now and then lost (QEMU 7.2 changes the word of pending
/// interrupts without a lock there), and a kernel that waits for that one alone sleeps for ever. So the outer kernel has a
/// tick that comes whatever happened to the one before.
const KERNEL_WORDS: &str = "console=ttyS0 panic=-1 nohz=off highres=off";
/// The emulated processor.
const PROCESSOR: &str = "EPYC,+svm,+npt";

impl OuterHost {
    /// Fetches what it consists of.
    pub(crate) fn prepare() -> Result<Self> {
        debian::install("qemu-system-x86", || paths::program("qemu-system-x86_64").is_some())?;
        let unpacked = paths::testbed().join("outer-kernel");
        if !unpacked.is_dir() {
            debian::unpack(&debian::stands_for(KERNEL_PACKAGE)?, &unpacked)?;
        }
        let vmlinuz = only_entry(&unpacked.join("boot"), "vmlinuz-")?;
        let tree = only_entry(&unpacked.join("lib/modules"), "")?.join("kernel");
        Ok(Self {
            vmlinuz,
            tree,
            modules: MODULES.to_vec(),
            busybox: guest_root::busybox()?,
            disk: None,
        })
    }

    /// Adds a disk, an image of an ext4 file system that is found at `/disk`. What is written there is gone with the machine.
    pub(crate) fn with_disk(mut self, image: PathBuf) -> Self {
        self.modules.extend(DISK_MODULES);
        self.disk = Some(image);
        self
    }

    /// An image of the machine in which the test bed's program is run with these arguments.
    pub(crate) fn image(&self, parts: &Parts, root: &Path, arguments: &str) -> Result<PathBuf> {
        let mut archive = self.archive_of_cases(parts, "/bed/root", arguments)?;
        archive.copy_tree(root, Path::new("bed/root"))?;
        written(&archive)
    }

    /// The same for a root folder that is on the disk.
    pub(crate) fn image_with_root_at(&self, root: &str, parts: &Parts, arguments: &str) -> Result<PathBuf> {
        written(&self.archive_of_cases(parts, root, arguments)?)
    }

    fn archive_of_cases(&self, parts: &Parts, root: &str, arguments: &str) -> Result<Archive> {
        let guest_cases = format!("/bed/guest-cases --tessera /bed/tessera --kernel /bed/kernel --root {root}");
        let mut archive = self.archive(&format!("{guest_cases} {arguments}"))?;
        for (program, name) in [(&parts.tessera, "tessera"), (&parts.guest_cases, "guest-cases")] {
            add_program(&mut archive, program, name)?;
        }
        archive.copy(&parts.kernel, "bed/kernel")?;
        Ok(archive)
    }

    /// Boots the machine with an archive, and gives each line that its program prints to `tell`.
    pub(crate) fn boot(&self, archive: &Archive, clock: Clock, tell: impl FnMut(&str)) -> Result<()> {
        self.boot_image(&written(archive)?, clock, PATIENCE, tell)
    }

    /// The same with an image, and with a limit to how long nothing is printed.
    pub(crate) fn boot_image(
        &self,
        image: &Path,
        clock: Clock,
        patience: Duration,
        mut tell: impl FnMut(&str),
    ) -> Result<()> {
        let mut qemu = self.start(image, "0", clock)?;
        let lines = Lines::of(qemu.stdout.take().context("qemu has an output")?);
        let status = follow(&lines, patience, &mut tell);
        let _ = qemu.kill();
        let _ = qemu.wait();
        match status? {
            Some(0) => Ok(()),
            Some(status) => bail!("the program in the outer host ended with status {status}"),
            None => bail!(
                "the outer host ended early; its kernel said last:\n{}",
                tail(&kernel_log("0"))
            ),
        }
    }

    /// Starts the machine; what its program reads and writes goes through pipes. `name` tells its log from others'.
    pub(crate) fn start(&self, image: &Path, name: &str, clock: Clock) -> Result<Child> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(clock.options());
        qemu.args(["-cpu", PROCESSOR, "-m", &MEMORY_MIB.to_string()]);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none"]);
        qemu.arg("-serial")
            .arg(format!("file:{}", kernel_log(name).display()))
            .args(["-serial", "stdio"]);
        qemu.arg("-kernel").arg(&self.vmlinuz).arg("-initrd").arg(image);
        qemu.args(["-append", KERNEL_WORDS]);
        if let Some(disk) = &self.disk {
            let drive = format!("file={},format=raw,if=virtio,snapshot=on", disk.display());
            qemu.args(["-drive", &drive]);
        }
        let stderr = File::create(paths::testbed().join(format!("qemu-{name}.log")))?;
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        qemu.spawn().context("cannot start qemu-system-x86_64")
    }

    /// What every outer host consists of; `command` is a line of shell that is run in it.
    pub(crate) fn archive(&self, command: &str) -> Result<Archive> {
        let mut archive = Archive::default();
        for folder in ["dev", "proc", "sys", "tmp", "run", "root", "bin", "disk"] {
            archive.folder(folder);
        }
        archive.copy(&self.busybox, "bin/busybox")?;
        for module in &self.modules {
            let file = self.tree.join(format!("{module}.ko"));
            let name = file.file_name().context("a module has a name")?;
            archive.copy(&file, Path::new("modules").join(name))?;
        }
        let modules: Vec<_> = self.modules.iter().filter_map(|path| path.rsplit('/').next()).collect();
        let init = include_str!("outer_host_init.sh")
            .replace("@MODULES@", &modules.join(" "))
            .replace("@COMMAND@", command)
            .replace("@STATUS_LINE@", STATUS_LINE);
        archive.script("init", &init);
        Ok(archive)
    }
}

/// What the outer host's clock counts.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// The time of the machine that emulates it.
    Host,
    /// Its instructions, a nanosecond each: slow, and the same in every run.
    Instructions,
}

impl Clock {
    fn options(self) -> &'static [&'static str] {
        match self {
            // One processor: with a thread for each of several, a guest or the outer kernel itself is now and then lost
            // to a triple or double fault on an idle machine (QEMU 7.2, on `max` and on EPYC).
            Self::Host => &["-accel", "tcg", "-smp", "1"],
            Self::Instructions => &[
                "-accel",
                "tcg,thread=single",
                "-smp",
                "1",
                "-icount",
                "shift=0,sleep=off",
            ],
        }
    }
}

/// Adds a program with its libraries, as `/bed/NAME`.
pub(crate) fn add_program(archive: &mut Archive, program: &Path, name: &str) -> Result<()> {
    let stripped = stripped(program)?;
    for library in guest_root::with_libraries(&stripped)?.iter().skip(1) {
        archive.copy(library, library)?;
    }
    archive.copy(&stripped, Path::new("bed").join(name))
}

/// Passes on the lines of the outer host until it says how its program ended.
fn follow(lines: &Lines, patience: Duration, tell: &mut impl FnMut(&str)) -> Result<Option<i32>> {
    while let Some(line) = lines.next_within(patience)? {
        match line.strip_prefix(STATUS_LINE) {
            Some(status) => return Ok(Some(status.parse().context("the outer host said no status")?)),
            None => tell(&line),
        }
    }
    Ok(None)
}

/// Writes an image of the machine.
pub(crate) fn written(archive: &Archive) -> Result<PathBuf> {
    let image = paths::testbed().join("outer-host.cpio");
    archive.write(&image)?;
    Ok(image)
}

fn kernel_log(name: &str) -> PathBuf {
    paths::testbed().join(format!("outer-kernel-{name}.log"))
}

/// Debug information triples what has to be unpacked by an emulated processor.
fn stripped(program: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("a program has a name")?;
    let folder = paths::testbed().join("stripped");
    fs::create_dir_all(&folder)?;
    let copy = folder.join(name);
    crate::step::quiet(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    Ok(copy)
}

fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .with_context(|| format!("nothing called {prefix}* in {}", folder.display()))
}

fn tail(file: &Path) -> String {
    let text = fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
