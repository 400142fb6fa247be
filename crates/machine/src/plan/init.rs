//! What the guest's init is told.

use guest_init::{Config, Mount, MountKind, Ports};

use super::vsock::VsockDecision;
use super::{DeviceKind, DevicePlan, PortRole, SharePlan};
use crate::spec::{Share, ShareKind, Spec, Stream};

/// The program when none is asked for.
const SHELL: &str = "/bin/sh";

/// The init's configuration; `None` without a root share for it to live in.
pub(super) fn config(spec: &Spec, vsock: &VsockDecision, devices: &[DevicePlan]) -> Option<Config> {
    spec.root.as_ref()?;
    Some(Config {
        args: if spec.command.is_empty() {
            vec![SHELL.to_owned()]
        } else {
            spec.command.clone()
        },
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        mounts: mounts(spec, devices),
        rlimits: Vec::new(),
        hostname: spec.name.clone(),
        tsi_inet: vsock.inet,
        terminal: [spec.stdio.stdin, spec.stdio.stdout, spec.stdio.stderr].contains(&Stream::Terminal),
        ports: ports(devices),
    })
}

/// The shares beside the root, with the tags that their devices have; by path, so that none covers one beneath it.
fn mounts(spec: &Spec, devices: &[DevicePlan]) -> Vec<Mount> {
    let plans = devices.iter().filter_map(|device| match &device.kind {
        DeviceKind::Share(share) if !share.root => Some(share),
        _ => None,
    });
    let mut mounts: Vec<Mount> = spec
        .shares
        .iter()
        .zip(plans)
        .map(|(share, plan)| mount(share, plan))
        .collect();
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    mounts
}

fn mount(share: &Share, plan: &SharePlan) -> Mount {
    Mount {
        kind: match plan.kind {
            ShareKind::Folder => MountKind::Virtiofs,
            ShareKind::File => MountKind::File,
        },
        tag: plan.tag.clone(),
        target: share.guest.clone(),
        read_only: plan.read_only,
    }
}

fn ports(devices: &[DevicePlan]) -> Ports {
    let has = |role| {
        devices.iter().any(|device| match &device.kind {
            DeviceKind::Console { ports } => ports.iter().any(|port| port.role == role),
            _ => false,
        })
    };
    Ports {
        stdin: has(PortRole::Stdin),
        stdout: has(PortRole::Stdout),
        stderr: has(PortRole::Stderr),
        control: has(PortRole::Control),
    }
}
