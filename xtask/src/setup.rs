//! Everything that a guest of the test bed needs, and the choice of the machine that it runs on.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};

use crate::outer_host::{Clock, MEMORY_MIB, OuterHost, PATIENCE};
use crate::step::{cargo, quiet, shown, step};
use crate::{guest_kernel, guest_root, paths};

/// The files of a run.
pub(crate) struct Parts {
    /// Our program.
    pub(crate) tessera: PathBuf,
    /// The test bed's program.
    pub(crate) guest_cases: PathBuf,
    /// The guest kernel.
    pub(crate) kernel: PathBuf,
    /// The guest's root folder.
    pub(crate) root: PathBuf,
}

/// Where guests run.
pub(crate) enum Host {
    /// KVM of this machine.
    This,
    /// KVM of a machine that qemu emulates.
    Nested(OuterHost),
}

/// Parts and a host, ready to run guests.
pub(crate) struct Bed {
    parts: Parts,
    host: Host,
}

/// Does all the set-up and says where guests will run, and why there.
pub(crate) fn prepare() -> Result<Bed> {
    fs::create_dir_all(paths::testbed())?;
    let root = guest_root::prepare()?;
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
    let kernel = guest_kernel::prepare()?;
    let parts = Parts {
        tessera: paths::release_program("tessera"),
        guest_cases: paths::release_program("guest-cases"),
        kernel,
        root,
    };
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
    Ok(Bed { parts, host })
}

/// Our program alone.
pub(crate) fn tessera() -> Result<PathBuf> {
    step("building tessera (release)", || {
        shown(&mut cargo(&["build", "--release", "-p", "tessera-vmm"]))
    })?;
    Ok(paths::release_program("tessera"))
}

impl Bed {
    /// Runs the demo of the test bed's program on the host, passing on what it prints.
    pub(crate) fn demo(&self) -> Result<()> {
        match &self.host {
            Host::This => shown(self.guest_cases().arg("demo")),
            Host::Nested(outer) => {
                let image = outer.image(&self.parts, "demo")?;
                outer.boot_image(&image, Clock::Host, PATIENCE, |line| println!("{line}"))
            }
        }
    }

    /// The names of the cases that contain `part`, those that take longest first.
    pub(crate) fn case_names(&self, part: &str) -> Result<Vec<String>> {
        let names = quiet(self.guest_cases().args(["list", part]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// How many cases this machine's processors and memory can run at a time.
    pub(crate) fn workers(&self) -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        match &self.host {
            Host::This => processors,
            Host::Nested(_) => processors
                .min((available_mib() / MEMORY_MIB).try_into().unwrap_or(1))
                .max(1),
        }
    }

    /// What starts processes that run cases.
    pub(crate) fn service(&self) -> Result<Service<'_>> {
        Ok(match &self.host {
            Host::This => Service::This(self),
            Host::Nested(outer) => Service::Nested(outer, outer.image(&self.parts, "serve")?),
        })
    }

    fn guest_cases(&self) -> Command {
        let mut command = Command::new(&self.parts.guest_cases);
        command.arg("--tessera").arg(&self.parts.tessera);
        command.arg("--kernel").arg(&self.parts.kernel);
        command.arg("--root").arg(&self.parts.root);
        command
    }

    /// Whether guests run on an emulated machine.
    pub(crate) fn is_nested(&self) -> bool {
        matches!(self.host, Host::Nested(_))
    }
}

/// Starts `guest-cases serve` where guests can boot.
pub(crate) enum Service<'a> {
    This(&'a Bed),
    Nested(&'a OuterHost, PathBuf),
}

impl Service<'_> {
    /// Starts the process or machine with this number; its input and output are pipes.
    pub(crate) fn start(&self, number: usize) -> Result<Child> {
        match self {
            Self::Nested(outer, image) => outer.start(image, &number.to_string(), Clock::Host),
            Self::This(bed) => {
                let mut command = bed.guest_cases();
                command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
                command.spawn().context("cannot start guest-cases")
            }
        }
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
