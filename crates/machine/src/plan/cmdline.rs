//! The kernel's command line.

use cmdline::{Access, Cmdline, CmdlineError, KernelLimits, Tsi};
use guest_init::contract::INIT_PATH;

use super::vsock::VsockDecision;
use super::{DevicePlan, PlanError};
use crate::limits::{KernelKind, Limits};
use crate::spec::Spec;

/// For every kernel: the console, quiet; a reset through the i8042, and at once, when the machine ends; and no paravirtual
/// page faults, which these machines do not serve.
const WORDS: [&str; 6] = [
    "console=hvc0",
    "quiet",
    "reboot=k",
    "panic=-1",
    "panic_print=0",
    "no-kvmapf",
];

/// For the bundle's kernel alone: it has no modules; its self-test of the jitter entropy source takes a third of its boot
/// while `/dev/random` does not depend on it; and its `SELinux` asks a policy that nobody loads at each system call.
const BUNDLE_WORDS: [&str; 3] = ["nomodule", "initcall_blacklist=jent_mod_init", "security=none"];

/// Makes a kernel without ACPI reset through the i8042 on power-off, instead of halting for ever.
const POWEROFF: &str = "krun.poweroff=i8042";

/// The whole line: our words, the root, the user's words, the devices, and TSI when its device is there.
pub(super) fn assemble(
    spec: &Spec,
    limits: &Limits,
    vsock: &VsockDecision,
    devices: &[DevicePlan],
) -> Result<String, PlanError> {
    let mut line = Cmdline::new(kernel_limits(limits));
    words(&mut line, spec, limits).map_err(PlanError::Cmdline)?;
    for word in &spec.kernel_words.omit {
        line.remove(word).map_err(|_| PlanError::NoSuchWord(word.clone()))?;
    }
    line.user_words(&spec.kernel_words.add).map_err(PlanError::Cmdline)?;
    guest_devices(&mut line, vsock, devices).map_err(PlanError::Cmdline)?;
    Ok(line.build())
}

fn kernel_limits(limits: &Limits) -> KernelLimits {
    let kernel = &limits.kernel;
    KernelLimits {
        capacity: kernel.cmdline_capacity,
        init_args: kernel.init_args,
        init_env: kernel.init_args,
    }
}

fn words(line: &mut Cmdline, spec: &Spec, limits: &Limits) -> Result<(), CmdlineError> {
    for word in WORDS {
        line.word(word)?;
    }
    if limits.kernel.kind == KernelKind::Bundle {
        for word in BUNDLE_WORDS {
            line.word(word)?;
        }
    }
    if limits.kernel.poweroff_token {
        line.word(POWEROFF)?;
    }
    if let Some(root) = &spec.root {
        let access = if root.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        line.root("/dev/root", Some("virtiofs"), access)?;
        line.param("init", INIT_PATH)?;
    }
    Ok(())
}

fn guest_devices(line: &mut Cmdline, vsock: &VsockDecision, devices: &[DevicePlan]) -> Result<(), CmdlineError> {
    for device in devices {
        line.device(device.mmio_base, device.irq)?;
    }
    if vsock.inet {
        line.tsi(Tsi::Inet)?;
    }
    if vsock.unix {
        line.tsi(Tsi::Unix)?;
    }
    Ok(())
}
