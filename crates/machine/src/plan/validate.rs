//! What is checked of a spec before anything is decided.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::PlanError;
use super::devices::folders_above;
use super::vsock::VsockInputs;
use crate::limits::Limits;
use crate::spec::{Publish, Share, ShareKind, Spec};

/// Folders that the init itself mounts on, or that hold our virtual files.
const OURS: [&str; 4] = ["/dev", "/proc", "/sys", "/.tessera"];
/// The longest host name that Linux takes, in bytes (`HOST_NAME_MAX`).
const HOST_NAME_MAX: usize = 64;

/// Refuses what no machine can have, or what would not reach the guest as it was meant.
pub(super) fn spec(spec: &Spec, limits: &Limits) -> Result<(), PlanError> {
    sizes(spec, limits)?;
    if spec.root.is_none() {
        rootless(spec)?;
    }
    shares(spec)?;
    program(spec)?;
    ports(spec)?;
    published_paths(spec)
}

/// The inputs of the vsock policy.
pub(super) fn vsock_inputs(spec: &Spec, limits: &Limits) -> VsockInputs {
    VsockInputs {
        vsock: spec.vsock,
        tsi_inet: spec.tsi_inet,
        tsi_unix: spec.tsi_unix,
        nets: spec.nets.len(),
        shares: spec.shares.len() + usize::from(spec.root.is_some()),
        has_root: spec.root.is_some(),
        routes: spec.vsock_routes.len(),
        published: spec.publish.len(),
        published_unix: spec.publish_unix.len(),
        allow_rules: spec.tsi_allow.len(),
        deny_rules: spec.tsi_deny.len(),
        host_os: limits.host_os,
        confidential: limits.confidential,
    }
}

fn sizes(spec: &Spec, limits: &Limits) -> Result<(), PlanError> {
    if !(1..=limits.max_vcpus).contains(&spec.cpus) {
        return Err(PlanError::Cpus {
            asked: spec.cpus,
            max: limits.max_vcpus,
        });
    }
    let min_mib = limits.kernel.min_mem.div_ceil(1 << 20);
    if spec.mem_mib < min_mib {
        return Err(PlanError::TooLittleMemory {
            asked_mib: spec.mem_mib,
            min_mib,
        });
    }
    if spec
        .mem_mib
        .checked_mul(1 << 20)
        .is_none_or(|bytes| bytes > boot_params::memory::MAX_BYTES)
    {
        return Err(PlanError::Memory {
            asked_mib: spec.mem_mib,
        });
    }
    Ok(())
}

fn rootless(spec: &Spec) -> Result<(), PlanError> {
    let needs = [
        (!spec.shares.is_empty(), "mounting a share"),
        (!spec.command.is_empty(), "running a program"),
        (!spec.env.is_empty(), "setting an environment variable"),
    ];
    match needs.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(PlanError::NeedsRoot { what }),
        None if spec.initramfs => Ok(()),
        None => Err(PlanError::NothingToStart),
    }
}

fn shares(spec: &Spec) -> Result<(), PlanError> {
    if let Some(root) = &spec.root
        && root.guest != "/"
    {
        return Err(mount_point(root, "the root is at `/`"));
    }
    if spec.root.as_ref().is_some_and(|root| root.kind == ShareKind::File) {
        return Err(PlanError::RootIsFile);
    }
    let mut taken = HashSet::with_capacity(spec.shares.len());
    for share in &spec.shares {
        let path = share.guest.as_str();
        if path == "/" {
            return Err(mount_point(share, "the root folder is there"));
        }
        if !path.starts_with('/')
            || path.contains('\0')
            || path[1..].split('/').any(|name| matches!(name, "" | "." | ".."))
        {
            return Err(mount_point(
                share,
                "it is not an absolute path without `.`, `..` and empty names",
            ));
        }
        if OURS.iter().any(|ours| is_beneath(path, ours)) {
            return Err(mount_point(share, "the guest's own file systems are there"));
        }
        if !taken.insert(path) {
            return Err(mount_point(share, "another share is there"));
        }
    }
    nothing_beneath_files(&spec.shares)
}

fn nothing_beneath_files(shares: &[Share]) -> Result<(), PlanError> {
    let is_file = |share: &&Share| share.kind == ShareKind::File;
    let files: HashSet<&str> = shares
        .iter()
        .filter(is_file)
        .map(|share| share.guest.as_str())
        .collect();
    let mut beneath = shares.iter();
    match beneath.find(|share| folders_above(&share.guest).any(|above| files.contains(above))) {
        Some(share) => Err(mount_point(share, "what is above it is the share of a file")),
        None => Ok(()),
    }
}

fn is_beneath(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn mount_point(share: &Share, why: &'static str) -> PlanError {
    PlanError::MountPoint {
        path: share.guest.escape_default().to_string(),
        why,
    }
}

fn program(spec: &Spec) -> Result<(), PlanError> {
    for argument in &spec.command {
        refuse_if(argument.contains('\0'), "the argument", argument, "it has a NUL in it")?;
    }
    if let Some(program) = spec.command.first() {
        refuse_if(program.is_empty(), "the program", program, "its name is empty")?;
    }
    for (name, value) in &spec.env {
        refuse_if(
            name.is_empty(),
            "the environment variable",
            &format!("{name}={value}"),
            "its name is empty",
        )?;
        refuse_if(
            name.contains('='),
            "the environment variable",
            name,
            "its name has a `=` in it",
        )?;
        refuse_if(
            name.contains('\0') || value.contains('\0'),
            "the environment variable",
            name,
            "it has a NUL in it",
        )?;
    }
    refuse_if(
        !spec.cwd.starts_with('/'),
        "the folder",
        &spec.cwd,
        "it is not an absolute path",
    )?;
    refuse_if(spec.cwd.contains('\0'), "the folder", &spec.cwd, "it has a NUL in it")?;
    let name_fits = spec.name.len() <= HOST_NAME_MAX && spec.name.bytes().all(|b| b.is_ascii_graphic());
    refuse_if(
        !name_fits,
        "the host name",
        &spec.name,
        "it is not 1 to 64 printable ASCII characters",
    )
}

fn refuse_if(bad: bool, what: &'static str, value: &str, why: &'static str) -> Result<(), PlanError> {
    if bad {
        Err(PlanError::Text {
            what,
            value: value.escape_default().to_string(),
            why,
        })
    } else {
        Ok(())
    }
}

fn ports(spec: &Spec) -> Result<(), PlanError> {
    let published: Vec<u16> = spec.publish.iter().map(|publish| publish.guest_port).collect();
    for (n, publish) in spec.publish.iter().enumerate() {
        let (host, guest) = (u32::from(publish.host_port), u32::from(publish.guest_port));
        for port in [host, guest] {
            refuse_port(port == 0, port, "published", "it is not a TCP port")?;
        }
        refuse_port(
            published[..n].contains(&publish.guest_port),
            guest,
            "published",
            "it is published already",
        )?;
        refuse_port(
            spec.publish[..n].iter().any(|other| share_a_port(publish, other)),
            host,
            "listened at",
            "another port of the guest is published there",
        )?;
    }
    let routed: Vec<u32> = spec.vsock_routes.iter().map(|route| route.port).collect();
    for (n, route) in spec.vsock_routes.iter().enumerate() {
        let reserved = matches!(route.port, 0 | 620 | u32::MAX);
        refuse_port(reserved, route.port, "routed", "vsock keeps it for itself")?;
        refuse_port(
            routed[..n].contains(&route.port),
            route.port,
            "routed",
            "it is routed already",
        )?;
        refuse_if(route.path.as_os_str().is_empty(), "the socket", "", "its path is empty")?;
    }
    Ok(())
}

/// Whether the host could listen for one of them only. Those of IPv4 and IPv6 keep out of each other's way.
fn share_a_port(one: &Publish, other: &Publish) -> bool {
    let [one_at, other_at] = [one, other].map(|publish| publish.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let same_family = one_at.is_ipv4() == other_at.is_ipv4();
    let overlap = one_at == other_at || one_at.is_unspecified() || other_at.is_unspecified();
    one.host_port == other.host_port && same_family && overlap
}

fn published_paths(spec: &Spec) -> Result<(), PlanError> {
    let what = "the published listener";
    spec.publish_unix.iter().try_for_each(|path| {
        refuse_if(!path.starts_with('/'), what, path, "it is not an absolute path")?;
        refuse_if(path.contains('\0'), what, path, "it has a NUL in it")?;
        let plain = path.split('/').all(|part| !matches!(part, "." | ".."));
        refuse_if(!plain, what, path, "it has a part `.` or `..`")
    })
}

fn refuse_port(bad: bool, port: u32, what: &'static str, why: &'static str) -> Result<(), PlanError> {
    if bad {
        Err(PlanError::Port { port, what, why })
    } else {
        Ok(())
    }
}
