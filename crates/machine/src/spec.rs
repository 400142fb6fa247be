//! What was asked for: plain data without any fact about the host.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vsock_proto::policy::Rule;

/// A machine as its user asks for it. [`plan`](crate::plan()) says what it consists of.
///
/// ```
/// use machine::{Limits, Share, Spec};
///
/// let spec = Spec {
///     root: Some(Share::root("/srv/debian")),
///     command: vec!["/bin/echo".into(), "hello".into()],
///     ..Spec::default()
/// };
/// let plan = machine::plan(&spec, &Limits::bundle()).unwrap();
/// assert!(plan.vsock.attached());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// The guest's host name.
    pub name: String,
    /// The number of vCPUs.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub mem_mib: u64,
    /// Where the interrupt controllers are: it limits how many devices there can be.
    pub irqchip: IrqchipChoice,
    /// What is to be added to the kernel's command line and left out of it.
    pub kernel_words: KernelWords,
    /// The file system that the guest starts from; without one there must be an initramfs.
    pub root: Option<Share>,
    /// Further shares, in the order they are mounted in.
    pub shares: Vec<Share>,
    /// Whether an initramfs is loaded beside the kernel.
    pub initramfs: bool,
    /// The program and its arguments; empty for a shell.
    pub command: Vec<String>,
    /// The program's environment as name and value.
    pub env: Vec<(String, String)>,
    /// The folder in the guest that the program starts in.
    pub cwd: String,
    /// What the program's standard streams are.
    pub stdio: Stdio,
    /// Net devices.
    pub nets: Vec<Net>,
    /// Whether there is a vsock device.
    pub vsock: Choice,
    /// Whether the guest's AF_INET and AF_INET6 sockets become the host's.
    pub tsi_inet: Choice,
    /// Whether the guest's AF_UNIX sockets become the host's, beneath the root share.
    pub tsi_unix: Choice,
    /// Destinations that TSI may reach beyond the default policy; as text in JSON. A rule without INET TSI is a contradiction.
    #[serde(with = "rules")]
    pub tsi_allow: Vec<Rule>,
    /// Destinations that TSI may not reach; as text in JSON. A rule without INET TSI is a contradiction.
    #[serde(with = "rules")]
    pub tsi_deny: Vec<Rule>,
    /// Ports of the guest that are published on the host.
    pub publish: Vec<Publish>,
    /// Paths in the guest whose AF_UNIX listeners, and all below them, are published on the host, beneath the root share.
    pub publish_unix: Vec<String>,
    /// Plain vsock ports that lead to UNIX sockets of the host.
    pub vsock_routes: Vec<VsockRoute>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: "tessera".into(),
            cpus: 1,
            mem_mib: 1024,
            irqchip: IrqchipChoice::Auto,
            kernel_words: KernelWords::default(),
            root: None,
            shares: Vec::new(),
            initramfs: false,
            command: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            stdio: Stdio::default(),
            nets: Vec::new(),
            vsock: Choice::Auto,
            tsi_inet: Choice::Auto,
            tsi_unix: Choice::Auto,
            tsi_allow: Vec::new(),
            tsi_deny: Vec::new(),
            publish: Vec::new(),
            publish_unix: Vec::new(),
            vsock_routes: Vec::new(),
        }
    }
}

/// An optional part: left to the policy, or decided by the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The policy decides.
    #[default]
    Auto,
    /// Asked for.
    On,
    /// Refused.
    Off,
}

/// Where the interrupt controllers are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IrqchipChoice {
    /// Split for a kernel that is known to have kvm-clock; else in the kernel as long as the devices fit there.
    #[default]
    Auto,
    /// All in the kernel: 19 devices.
    InKernel,
    /// The IO-APIC in this process: 115 devices. There is no PIT, so the guest kernel needs kvm-clock.
    Split,
}

/// The user's say in the kernel's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KernelWords {
    /// Words to add, after ours and before the devices.
    pub add: String,
    /// Words of ours to leave out, exactly as they are written in the plan.
    pub omit: Vec<String>,
}

/// A folder or a file of the host in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The folder or file on the host.
    pub host: PathBuf,
    /// Where the guest sees it: an absolute path, `/` for the root.
    pub guest: String,
    /// Whether the guest may only read.
    #[serde(default)]
    pub read_only: bool,
    /// Whether it is a folder or a file; the root is a folder.
    #[serde(default)]
    pub kind: ShareKind,
    /// How the guest may cache it.
    #[serde(default)]
    pub cache: Cache,
}

/// What is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareKind {
    /// A folder with all that is in it.
    #[default]
    Folder,
    /// A single regular file. The file is shared and not its name: when the host puts another file in its place, the
    /// guest keeps the old one. In the guest it can be read, written, truncated and given another mode; its name is a
    /// mount point there, so removing and renaming it, or another file over it, is EBUSY.
    File,
}

/// How the guest may cache what it got of a share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Each access asks the host: a change by the host is seen at once, except in a file that is mapped.
    None,
    /// Who opens a file sees what was written by those who closed it before; names and attributes may be a second old.
    #[default]
    Auto,
    /// Nothing but this guest changes the share while it is mounted: a change by the host may never be seen.
    Always,
}

impl Share {
    /// A writable root share.
    #[must_use]
    pub fn root(host: impl Into<PathBuf>) -> Self {
        Self::new(host, "/")
    }

    /// A writable share of a folder.
    #[must_use]
    pub fn new(host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            guest: guest.into(),
            read_only: false,
            kind: ShareKind::Folder,
            cache: Cache::Auto,
        }
    }

    /// A writable share of a single file.
    #[must_use]
    pub fn file(host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        Self {
            kind: ShareKind::File,
            ..Self::new(host, guest)
        }
    }
}

/// What the program's standard streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stdio {
    /// Where the program reads from.
    pub stdin: Stream,
    /// Where its output goes.
    pub stdout: Stream,
    /// Where its messages go.
    pub stderr: Stream,
}

impl Default for Stdio {
    fn default() -> Self {
        Self {
            stdin: Stream::Pipe,
            stdout: Stream::Pipe,
            stderr: Stream::Pipe,
        }
    }
}

/// One standard stream of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// A port of its own: a pipe or a file, with an end.
    Pipe,
    /// The guest's terminal, `hvc0`.
    Terminal,
}

/// A net device's back-end on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Net {
    /// A tap interface by name.
    Tap(String),
    /// The UNIX stream socket of a passt process.
    Passt(PathBuf),
}

/// A TCP port of the guest that the host offers to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The address of the host to listen on; loopback when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<IpAddr>,
    /// The port on the host.
    pub host_port: u16,
    /// The port that the guest's program listens on.
    pub guest_port: u16,
}

/// A plain vsock port and the UNIX socket that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockRoute {
    /// The vsock port: the host's when the guest connects, the guest's when the host does.
    pub port: u32,
    /// The UNIX socket on the host.
    pub path: PathBuf,
    /// Whether the host listens on the socket for connections into the guest.
    #[serde(default)]
    pub listen: bool,
}

/// Rules as the text that they are written in.
pub(crate) mod rules {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use vsock_proto::policy::Rule;

    pub(crate) fn serialize<S: Serializer>(rules: &[Rule], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(rules.iter().map(Rule::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| text.parse().map_err(D::Error::custom))
            .collect()
    }
}
