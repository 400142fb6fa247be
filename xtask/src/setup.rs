//! Everything that a guest of the test bed needs, and the choice of the machine that it runs on.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::outer_host::OuterHost;
use crate::step::{cargo, shown, step};
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

impl Bed {
    /// Runs the test bed's program on the host, passing on what it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<()> {
        match &self.host {
            Host::Nested(outer) => outer.run(&self.parts, arguments),
            Host::This => {
                let mut command = Command::new(&self.parts.guest_cases);
                command.arg("--tessera").arg(&self.parts.tessera);
                command.arg("--kernel").arg(&self.parts.kernel);
                command.arg("--root").arg(&self.parts.root);
                shown(command.args(arguments))
            }
        }
    }

    /// Whether guests run on an emulated machine.
    pub(crate) fn is_nested(&self) -> bool {
        matches!(self.host, Host::Nested(_))
    }
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
