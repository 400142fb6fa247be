//! Which devices a machine has, in their fixed order.
//!
//! The order is ABI: it fixes IRQ line, address and the guest's `virtioN`. vsock comes last, so that its absence moves
//! nothing, and a further device moves only later kinds.

use std::collections::HashMap;
use std::path::PathBuf;

use guest_init::contract::{CONTROL_PORT, STDERR_PORT, STDIN_PORT, STDOUT_PORT};
use serde::Serialize;
use vsock_proto::policy::Rule;

use super::DevicePlan;
use super::vsock::VsockDecision;
use crate::spec::{Cache, Net, Publish, Share, ShareKind, Spec, Stream, VsockRoute};

/// Pins of KVM's own IO-APIC.
const KVM_IO_APIC_PINS: u32 = 24;
/// The tag by which the kernel itself looks for its root (`root=/dev/root`).
const ROOT_TAG: &str = "/dev/root";
/// Of a share.
const MAX_REQUEST_QUEUES: u16 = 8;
/// The guest's address on vsock, as in every VMM with TSI.
const GUEST_CID: u32 = 3;

/// What a device is, and all that is needed to make it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A virtio-console.
    Console {
        /// Its ports; the first is the terminal `hvc0`.
        ports: Vec<ConsolePort>,
    },
    /// A virtio-fs share.
    Share(SharePlan),
    /// A virtio-net device.
    Net(Net),
    /// The virtio-vsock device.
    Vsock(VsockPlan),
}

/// Who serves what a driver notifies of ([`DeviceKind::served_by`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// The device's thread. The notification ends inside KVM.
    Thread,
    /// The vCPU that notifies, as far as it is short, and the device's thread otherwise. The notification comes to this
    /// process.
    Vcpu,
}

impl DeviceKind {
    /// A share answers most requests within microseconds, and the guest waits for the answer. The others pass on what
    /// somebody on the host has to take, who is woken for it and would have the vCPU's place.
    #[must_use]
    pub fn served_by(&self) -> ServedBy {
        match self {
            Self::Share(_) => ServedBy::Vcpu,
            Self::Console { .. } | Self::Net(_) | Self::Vsock(_) => ServedBy::Thread,
        }
    }
}

/// One port of a virtio-console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsolePort {
    /// What the guest knows it by; empty for the terminal.
    pub name: &'static str,
    /// What it is for.
    pub role: PortRole,
}

/// What a console port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortRole {
    /// The terminal; kernel messages go there too.
    Terminal,
    /// The program's standard input.
    Stdin,
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
    /// Signals from the host to the program.
    Control,
}

/// A virtio-fs share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharePlan {
    /// What the guest mounts it by.
    pub tag: String,
    /// The folder or file on the host.
    pub host: PathBuf,
    /// Which of the two it is.
    pub kind: ShareKind,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// How the guest may cache it.
    pub cache: Cache,
    /// Its request queues: the vCPUs are spread over them, and those of different queues do not wait for each other in the
    /// guest. One thread serves them all.
    pub request_queues: u16,
    /// What the share has for the guest even where the host has nothing.
    pub mount_points: MountPoints,
    /// Whether it is the root, which has the init and its configuration in it.
    pub root: bool,
}

/// Mount points within a share, as paths within it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MountPoints {
    /// Folders for folders and file systems.
    pub folders: Vec<String>,
    /// Files for single files.
    pub files: Vec<String>,
}

impl MountPoints {
    fn add(&mut self, path: &str, kind: ShareKind) {
        let paths = match kind {
            ShareKind::Folder => &mut self.folders,
            ShareKind::File => &mut self.files,
        };
        paths.push(path.to_owned());
    }
}

/// The virtio-vsock device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VsockPlan {
    /// The guest's address.
    pub guest_cid: u32,
    /// Carries AF_INET and AF_INET6.
    pub inet: bool,
    /// Carries AF_UNIX.
    pub unix: bool,
    /// The folder that the guest's AF_UNIX paths are looked up beneath.
    pub unix_root: Option<PathBuf>,
    /// Destinations allowed beyond the default policy.
    #[serde(serialize_with = "crate::spec::rules::serialize")]
    pub allow: Vec<Rule>,
    /// Destinations denied.
    #[serde(serialize_with = "crate::spec::rules::serialize")]
    pub deny: Vec<Rule>,
    /// Published ports.
    pub publish: Vec<Publish>,
    /// Published AF_UNIX listeners: paths in the guest, each with all below it.
    pub publish_unix: Vec<String>,
    /// Plain vsock routes.
    pub routes: Vec<VsockRoute>,
}

/// All devices by name, in order: console, shares, nets, vsock.
pub(super) fn in_order(spec: &Spec, vsock: &VsockDecision) -> Vec<(String, DeviceKind)> {
    let mut points = Holders::of(spec);
    let ports = console_ports(spec);
    let mut devices = vec![("console".to_owned(), DeviceKind::Console { ports })];
    if let Some(root) = &spec.root {
        devices.push((
            "root".to_owned(),
            DeviceKind::Share(root_share(spec, root, &mut points)),
        ));
    }
    for (n, share) in spec.shares.iter().enumerate() {
        devices.push(further_share(spec, format!("share{n}"), share, &mut points));
    }
    for (n, net) in spec.nets.iter().enumerate() {
        devices.push((format!("net{n}"), DeviceKind::Net(net.clone())));
    }
    if vsock.attached() {
        devices.push(("vsock".to_owned(), DeviceKind::Vsock(vsock_device(spec, vsock))));
    }
    devices
}

/// The pins that the lines in use need, and at least those of KVM's own IO-APIC. A kernel goes through all that it is told
/// of several times, and with the split irqchip each access is an exit to this process.
pub(super) fn io_apic_pins(devices: &[DevicePlan]) -> u32 {
    let highest = devices.iter().map(|device| device.irq).max().unwrap_or(0);
    KVM_IO_APIC_PINS.max(highest.saturating_add(1))
}

fn console_ports(spec: &Spec) -> Vec<ConsolePort> {
    let mut ports = vec![ConsolePort {
        name: "",
        role: PortRole::Terminal,
    }];
    if spec.root.is_none() {
        return ports;
    }
    let streams = [
        (spec.stdio.stdin, STDIN_PORT, PortRole::Stdin),
        (spec.stdio.stdout, STDOUT_PORT, PortRole::Stdout),
        (spec.stdio.stderr, STDERR_PORT, PortRole::Stderr),
    ];
    let piped = streams.into_iter().filter(|(stream, ..)| *stream == Stream::Pipe);
    ports.extend(piped.map(|(_, name, role)| ConsolePort { name, role }));
    ports.push(ConsolePort {
        name: CONTROL_PORT,
        role: PortRole::Control,
    });
    ports
}

fn root_share(spec: &Spec, root: &Share, points: &mut Holders<'_>) -> SharePlan {
    SharePlan {
        root: true,
        ..share(spec, ROOT_TAG, root, points.take_root())
    }
}

fn share(spec: &Spec, tag: &str, share: &Share, mount_points: MountPoints) -> SharePlan {
    SharePlan {
        tag: tag.to_owned(),
        host: share.host.clone(),
        kind: share.kind,
        read_only: share.read_only,
        cache: share.cache,
        request_queues: request_queues(spec.cpus),
        mount_points,
        root: false,
    }
}

/// One for each vCPU, up to a number beyond which the one thread behind them is what they wait for.
fn request_queues(cpus: u32) -> u16 {
    u16::try_from(cpus).map_or(MAX_REQUEST_QUEUES, |cpus| cpus.clamp(1, MAX_REQUEST_QUEUES))
}

/// The device's name serves as its tag.
fn further_share(spec: &Spec, name: String, wanted: &Share, points: &mut Holders<'_>) -> (String, DeviceKind) {
    let plan = share(spec, &name, wanted, points.take(&wanted.guest));
    (name, DeviceKind::Share(plan))
}

/// Which share each mount point lies in.
struct Holders<'a> {
    root: MountPoints,
    /// By where the share is mounted.
    shares: HashMap<&'a str, MountPoints>,
}

impl<'a> Holders<'a> {
    fn of(spec: &'a Spec) -> Self {
        let at = |share: &'a Share| (share.guest.as_str(), MountPoints::default());
        let mut shares: HashMap<&str, MountPoints> = spec.shares.iter().map(at).collect();
        let system = ["/dev", "/proc", "/sys"].map(str::to_owned);
        let mut root = MountPoints {
            folders: system.into(),
            files: Vec::new(),
        };
        for share in &spec.shares {
            let point = share.guest.as_str();
            let holder = folders_above(point).find(|folder| shares.contains_key(folder));
            match holder.and_then(|folder| shares.get_mut(folder).zip(point.strip_prefix(folder))) {
                Some((points, within)) => points.add(within, share.kind),
                None => root.add(point, share.kind),
            }
        }
        Self { root, shares }
    }

    fn take_root(&mut self) -> MountPoints {
        std::mem::take(&mut self.root)
    }

    fn take(&mut self, share: &str) -> MountPoints {
        self.shares.get_mut(share).map(std::mem::take).unwrap_or_default()
    }
}

/// `/a/b` and `/a` for `/a/b/c`.
pub(super) fn folders_above(path: &str) -> impl Iterator<Item = &str> {
    fn above(path: &str) -> Option<&str> {
        path.rsplit_once('/')
            .map(|(above, _)| above)
            .filter(|above| !above.is_empty())
    }
    std::iter::successors(above(path), |path| above(path))
}

fn vsock_device(spec: &Spec, decision: &VsockDecision) -> VsockPlan {
    VsockPlan {
        guest_cid: GUEST_CID,
        inet: decision.inet,
        unix: decision.unix,
        unix_root: spec
            .root
            .as_ref()
            .filter(|_| decision.unix)
            .map(|root| root.host.clone()),
        allow: spec.tsi_allow.clone(),
        deny: spec.tsi_deny.clone(),
        publish: spec.publish.clone(),
        publish_unix: spec.publish_unix.clone(),
        routes: spec.vsock_routes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_serve_what_they_notify_shares_of_and_threads_the_rest() {
        let spec = Spec {
            root: Some(Share::new("/root", "/")),
            shares: vec![Share::new("/srv", "/data")],
            ..Spec::default()
        };
        let plan = crate::plan(&spec, &crate::Limits::bundle()).unwrap();
        for device in &plan.devices {
            let expected = match device.kind {
                DeviceKind::Share(_) => ServedBy::Vcpu,
                _ => ServedBy::Thread,
            };
            assert_eq!(device.kind.served_by(), expected, "{}", device.name);
        }
    }
}
