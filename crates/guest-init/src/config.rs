//! What the host tells the init. The init itself includes this file: it has to do with `std` alone.

/// The content of the virtual file [`CONFIG_PATH`](crate::contract::CONFIG_PATH).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Config {
    /// The program, then its arguments. A program without a `/` is looked for in the `PATH` of [`env`](Self::env).
    pub args: Vec<String>,
    /// The whole environment, as names and values. `PATH`, `HOME` and, on a terminal, `TERM` get a default if missing.
    pub env: Vec<(String, String)>,
    /// The folder to start in; absolute.
    pub cwd: String,
    /// What to mount besides the kernel's own file systems, in this order.
    pub mounts: Vec<Mount>,
    /// Limits of the program (not of the init).
    pub rlimits: Vec<Rlimit>,
    /// The host name. Empty: leave the kernel's.
    pub hostname: String,
    /// INET sockets go to the host by TSI: bring `dummy0` up with 203.0.113.1/24, so that programs see a network.
    pub tsi_inet: bool,
    /// The program gets `hvc0` as its controlling terminal.
    pub terminal: bool,
    /// The virtio ports that the host has attached.
    pub ports: Ports,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// The tag of the virtio-fs device; of no meaning for a tmpfs.
    pub tag: String,
    /// Where; absolute. On the root share the folder or file has to be there, a virtual one at the least: the init
    /// creates mount points only on file systems that are the guest's own.
    pub target: String,
    /// Nothing can be written there.
    pub read_only: bool,
}

/// The kinds of [`Mount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum MountKind {
    /// A share of the host.
    Virtiofs,
    /// A share whose only file, [`SHARED_FILE`](crate::contract::SHARED_FILE), is bound to the target.
    File,
    /// Memory of the guest.
    Tmpfs,
}

/// A limit of resources, `setrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Rlimit {
    /// The number of the `RLIMIT_` constant in the guest's kernel, for example 7 for `RLIMIT_NOFILE`.
    pub resource: u32,
    /// The limit in force, in the unit of the resource; `u64::MAX` is no limit.
    pub soft: u64,
    /// How far the program may raise it.
    pub hard: u64,
}

/// The virtio-console ports that are there, under the names in [`contract`](crate::contract). The init waits for each,
/// since the kernel announces ports while it is running already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Ports {
    /// The program's standard input.
    pub stdin: bool,
    /// The program's standard output.
    pub stdout: bool,
    /// The program's standard error.
    pub stderr: bool,
    /// Signals from the host.
    pub control: bool,
}
