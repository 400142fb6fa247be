//! The outer host: an emulated machine with AMD-V, so that KVM in it boots a guest on any machine.
//!
//! It is Debian's cloud kernel and one archive with busybox, the modules of KVM, our programs, the guest kernel and the
//! guest's root folder. The first serial port takes the kernel's messages into a file, the second one is what the user
//! sees.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::archive::Archive;
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
/// Room for a guest of 4 GiB.
const MEMORY_MIB: u32 = 6144;
/// Longer than any good run; a run that hangs ends here.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);
const STATUS_LINE: &str = "outer host: status ";

/// An emulated machine that can be started.
pub(crate) struct OuterHost {
    vmlinuz: PathBuf,
    modules: Vec<PathBuf>,
    busybox: PathBuf,
}

/// The emulated processor.
const PROCESSOR: &str = "EPYC,+svm,+npt";

/// How often the machine is booted when its kernel dies.
const BOOTS: usize = 2;

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
        let modules = MODULES.iter().map(|module| tree.join(format!("{module}.ko"))).collect();
        Ok(Self {
            vmlinuz,
            modules,
            busybox: guest_root::busybox()?,
        })
    }

    /// Boots the machine, runs the test bed's program in it, and passes on what that prints.
    pub(crate) fn run(&self, parts: &Parts, arguments: &[&str]) -> Result<()> {
        let arguments: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
        let guest_cases = "/bed/guest-cases --tessera /bed/tessera --kernel /bed/kernel --root /bed/root";
        let mut archive = self.archive(&format!("{guest_cases} {}", arguments.join(" ")))?;
        for (program, name) in [(&parts.tessera, "tessera"), (&parts.guest_cases, "guest-cases")] {
            add_program(&mut archive, program, name)?;
        }
        archive.copy(&parts.kernel, "bed/kernel")?;
        archive.copy_tree(&parts.root, Path::new("bed/root"))?;
        self.boot(&archive, Clock::Host, |line| println!("{line}"))
    }

    /// Boots the machine with an archive, and gives each line that its program prints to `tell`. When the machine's own
    /// kernel dies under the emulation, it is booted once more.
    pub(crate) fn boot(&self, archive: &Archive, clock: Clock, mut tell: impl FnMut(&str)) -> Result<()> {
        let image = paths::testbed().join("outer-host.cpio");
        archive.write(&image)?;
        let kernel_log = paths::testbed().join("outer-kernel.log");
        for _ in 0..BOOTS {
            let mut qemu = self.start(&image, &kernel_log, clock)?;
            let status = follow(&mut qemu, &mut tell);
            let _ = qemu.kill();
            let _ = qemu.wait();
            match status? {
                Some(0) => return Ok(()),
                Some(status) => bail!("the program in the outer host ended with status {status}"),
                None => tell("again: the outer host ended early"),
            }
        }
        let said = tail(&kernel_log);
        bail!("the outer host ended early {BOOTS} times; its kernel said last:\n{said}")
    }

    fn start(&self, image: &Path, kernel_log: &Path, clock: Clock) -> Result<Child> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(clock.options());
        qemu.args(["-cpu", PROCESSOR, "-m", &MEMORY_MIB.to_string()]);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none"]);
        qemu.arg("-serial")
            .arg(format!("file:{}", kernel_log.display()))
            .args(["-serial", "stdio"]);
        qemu.arg("-kernel").arg(&self.vmlinuz).arg("-initrd").arg(image);
        qemu.args(["-append", "console=ttyS0 panic=-1"]);
        let stderr = File::create(paths::testbed().join("qemu.log"))?;
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        qemu.spawn().context("cannot start qemu-system-x86_64")
    }

    /// What every outer host consists of; `command` is a line of shell that is run in it.
    pub(crate) fn archive(&self, command: &str) -> Result<Archive> {
        let mut archive = Archive::default();
        for folder in ["dev", "proc", "sys", "tmp", "run", "root", "bin"] {
            archive.folder(folder);
        }
        archive.copy(&self.busybox, "bin/busybox")?;
        for module in &self.modules {
            let name = module.file_name().context("a module has a name")?;
            archive.copy(module, Path::new("modules").join(name))?;
        }
        let modules: Vec<_> = MODULES.iter().filter_map(|module| module.rsplit('/').next()).collect();
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
            // With a thread for each processor, a guest or the outer kernel itself is now and then lost to a triple or
            // double fault on an idle machine (QEMU 7.2, on `max` and on EPYC): so it has one.
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
fn follow(qemu: &mut Child, mut tell: impl FnMut(&str)) -> Result<Option<i32>> {
    let output = BufReader::new(qemu.stdout.take().context("qemu has an output")?);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let end = Instant::now() + TIME_LIMIT;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.strip_prefix(STATUS_LINE) {
                Some(status) => return Ok(Some(status.parse().context("the outer host said no status")?)),
                None => tell(&line),
            },
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the outer host was not done after {} s", TIME_LIMIT.as_secs())
            }
        }
    }
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

fn quoted(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn tail(file: &Path) -> String {
    let text = fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
