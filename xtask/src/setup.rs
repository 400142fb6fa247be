//! Everything that a guest of the test bed needs, and the choice of the machine that it runs on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::outer_host::{Clock, MEMORY_MIB, OuterHost, PATIENCE};
use crate::step::{cargo, quiet, shown, step};
use crate::{guest_kernel, guest_root, paths};

/// The files of a run, besides the guest's root folder.
pub(crate) struct Parts {
    /// Our program.
    pub(crate) tessera: PathBuf,
    /// The test bed's program.
    pub(crate) guest_cases: PathBuf,
    /// The guest kernel.
    pub(crate) kernel: PathBuf,
}

/// Where guests run.
pub(crate) enum Host {
    /// KVM of this machine.
    This,
    /// KVM of a machine that qemu emulates.
    Nested(OuterHost),
}

/// All that guests are run with, and where.
pub(crate) struct Bed {
    parts: Parts,
    root: PathBuf,
    host: Host,
}

/// Does all the set-up and says where guests will run, and why there.
pub(crate) fn prepare() -> Result<Bed> {
    fs::create_dir_all(paths::testbed())?;
    let root = guest_root::prepare()?;
    let parts = parts()?;
    let host = match why_kvm_cannot_boot() {
        None => {
            eprintln!("    Guests run on this machine's KVM.");
            Host::This
        }
        Some(why) => {
            eprintln!("    {why}, so guests run on an emulated machine that has KVM (slower).");
            Host::Nested(OuterHost::prepare()?)
        }
    };
    Ok(Bed { parts, root, host })
}

/// Builds our programs and fetches the guest kernel.
pub(crate) fn parts() -> Result<Parts> {
    step("building our programs (release)", || {
        shown(&mut cargo(&[
            "build",
            "--release",
            "-p",
            "tessera-vmm",
            "-p",
            "tessera-testbed",
        ]))
    })?;
    Ok(Parts {
        tessera: paths::release_program("tessera"),
        guest_cases: paths::release_program("guest-cases"),
        kernel: guest_kernel::prepare()?,
    })
}

/// Our program alone.
pub(crate) fn tessera() -> Result<PathBuf> {
    step("building tessera (release)", || {
        shown(&mut cargo(&["build", "--release", "-p", "tessera-vmm"]))
    })?;
    Ok(paths::release_program("tessera"))
}

impl Parts {
    /// A call of the test bed's program for guests with this root folder.
    fn cases(&self, root: &Path) -> Command {
        let mut command = Command::new(&self.guest_cases);
        command.arg("--tessera").arg(&self.tessera);
        command.arg("--kernel").arg(&self.kernel);
        command.arg("--root").arg(root);
        command
    }

    /// The names that `guest-cases list` prints for these arguments, of the cases that take longest first.
    pub(crate) fn case_names(&self, arguments: &[&str]) -> Result<Vec<String>> {
        // No case is run, so no root folder is looked at.
        let names = quiet(self.cases(Path::new("/")).arg("list").args(arguments))?;
        ensure!(!names.is_empty(), "no guest case is named like {}", arguments.join(" "));
        Ok(names.lines().map(str::to_owned).collect())
    }
}

impl Bed {
    /// Runs the demo of the test bed's program on the host, passing on what it prints.
    pub(crate) fn demo(&self) -> Result<()> {
        match &self.host {
            Host::This => shown(self.parts.cases(&self.root).arg("demo")),
            Host::Nested(outer) => {
                let image = outer.image(&self.parts, &self.root, "demo")?;
                outer.boot_image(&image, Clock::Host, PATIENCE, |line| println!("{line}"))
            }
        }
    }

    /// The names of the cases that contain `part`.
    pub(crate) fn case_names(&self, part: &str) -> Result<Vec<String>> {
        self.parts.case_names(&[part])
    }

    /// What starts processes that run cases.
    pub(crate) fn service(&self) -> Result<Service<'_>> {
        Ok(match &self.host {
            Host::This => Service::This(self),
            Host::Nested(outer) => Service::Nested(outer, outer.image(&self.parts, &self.root, "serve")?),
        })
    }

    /// Whether guests run on an emulated machine.
    pub(crate) fn is_nested(&self) -> bool {
        matches!(self.host, Host::Nested(_))
    }
}

/// Starts `guest-cases serve` where guests can boot.
pub(crate) enum Service<'a> {
    /// On this machine.
    This(&'a Bed),
    /// On emulated machines that boot this image.
    Nested(&'a OuterHost, PathBuf),
}

impl Service<'_> {
    /// Starts the process or machine with this number; its input and output are pipes.
    pub(crate) fn start(&self, number: usize) -> Result<Child> {
        match self {
            Self::Nested(outer, image) => outer.start(image, &number.to_string(), Clock::Host),
            Self::This(bed) => {
                let mut command = bed.parts.cases(&bed.root);
                command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
                command.spawn().context("cannot start guest-cases")
            }
        }
    }

    /// How many cases this machine's processors and memory can run at a time.
    pub(crate) fn workers(&self) -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        match self {
            Self::This(_) => processors,
            Self::Nested(..) => processors
                .min((available_mib() / MEMORY_MIB).try_into().unwrap_or(1))
                .max(1),
        }
    }

    /// Whether its guests run on emulated machines.
    pub(crate) fn is_emulated(&self) -> bool {
        matches!(self, Self::Nested(..))
    }
}

fn available_mib() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

/// A paravirtual `/dev/kvm` runs a few instructions, but no kernel: only `vmx` or `svm` shows that it can.
fn why_kvm_cannot_boot() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    if !flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        return Some("This machine's processor shows neither vmx nor svm".to_owned());
    }
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => None,
        Err(error) => Some(format!("/dev/kvm cannot be opened ({error})")),
    }
}
