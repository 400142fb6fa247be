//! Whether a machine has a vsock device: the rule that all this began with.
//!
//! virtio-vsock costs one IRQ line and one MMIO slot. It is attached only when something needs it:
//!
//! ```text
//! inet   = vsock is not off, and INET TSI is asked for or there is no net device
//! unix   = vsock is not off, and UNIX TSI is asked for or the root is the only share
//! attach = vsock is asked for, or there is a route, or inet, or unix
//! ```
//!
//! The two kinds of TSI are independent reasons: the kernel has a switch for each. Publishing a port attaches nothing.

use std::fmt;

use serde::Serialize;

use super::PlanError;
use crate::limits::HostOs;
use crate::spec::Choice;

/// All that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct VsockInputs {
    /// `vsock` of the spec.
    pub vsock: Choice,
    /// `tsi_inet` of the spec.
    pub tsi_inet: Choice,
    /// `tsi_unix` of the spec.
    pub tsi_unix: Choice,
    /// The number of net devices.
    pub nets: usize,
    /// The number of shares, the root among them.
    pub shares: usize,
    /// Whether one of the shares is the root; it is then a folder of the host.
    pub has_root: bool,
    /// The number of plain vsock routes.
    pub routes: usize,
    /// The number of published ports.
    pub published: usize,
    /// The number of published AF_UNIX paths.
    pub published_unix: usize,
    /// The number of rules of `tsi_allow`.
    pub allow_rules: usize,
    /// The number of rules of `tsi_deny`.
    pub deny_rules: usize,
    /// The operating system of the host.
    pub host_os: HostOs,
    /// Whether the machine is a confidential one.
    pub confidential: bool,
}

/// Whether there is a vsock device, what TSI it carries, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VsockDecision {
    /// The device carries AF_INET and AF_INET6 (`HIJACK_INET`).
    pub inet: bool,
    /// The device carries AF_UNIX (`HIJACK_UNIX`).
    pub unix: bool,
    /// What speaks for the device, or, when there is none, what speaks against each thing that could need it.
    pub reasons: Vec<Reason>,
    attached: bool,
}

impl VsockDecision {
    /// Whether the machine has the device.
    #[must_use]
    pub const fn attached(&self) -> bool {
        self.attached
    }
}

/// One reason for or against the vsock device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// For: `vsock` is on.
    Requested,
    /// For: there is a plain vsock route.
    Route,
    /// For: `tsi_inet` is on.
    InetRequested,
    /// For: the guest has no other way to reach INET.
    InetWithoutNet,
    /// For: `tsi_unix` is on.
    UnixRequested,
    /// For: the root is the only share, so paths in the guest are paths beneath it.
    UnixOnlyRoot,
    /// Against: `vsock` is off.
    Refused,
    /// Against: `tsi_inet` is off.
    InetRefused,
    /// Against: a net device carries INET.
    InetHasNet,
    /// Against: `tsi_unix` is off.
    UnixRefused,
    /// Against: there is no root share to look paths up in.
    UnixNoRoot,
    /// Against: besides the root there are other shares, so a path does not tell the share.
    UnixOtherShares,
    /// Against: this host cannot.
    UnixHost,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "it is asked for",
            Self::Route => "a vsock port is routed",
            Self::InetRequested => "INET TSI is asked for",
            Self::InetWithoutNet => "INET goes through TSI, as there is no net device",
            Self::UnixRequested => "UNIX TSI is asked for",
            Self::UnixOnlyRoot => "UNIX goes through TSI, as the root is the only share",
            Self::Refused => "it is refused",
            Self::InetRefused => "INET TSI is refused",
            Self::InetHasNet => "INET goes through the net device",
            Self::UnixRefused => "UNIX TSI is refused",
            Self::UnixNoRoot => "there is no root share for UNIX TSI",
            Self::UnixOtherShares => "there are more shares than the root, so no UNIX TSI",
            Self::UnixHost => "this host has no UNIX TSI",
        })
    }
}

/// Decides.
///
/// # Errors
/// [`PlanError::Contradiction`] when two settings exclude each other; nothing is dropped in silence.
pub fn attachment(inputs: &VsockInputs) -> Result<VsockDecision, PlanError> {
    refuse_contradictions(inputs)?;
    let inet = inet(inputs);
    let unix = unix(inputs);
    if inet.is_err()
        && let Some((what, why)) = needs_inet(inputs)
    {
        return Err(contradiction(what, inet_obstacle(inputs), why));
    }
    if inputs.published_unix > 0
        && let Err(reason) = unix
    {
        return Err(contradiction(
            "publish_unix",
            publish_unix_obstacle(reason),
            "a UNIX listener is published through UNIX TSI",
        ));
    }
    if inputs.host_os == HostOs::Windows && (inet.is_ok() || unix.is_ok()) {
        return Err(contradiction(
            "TSI",
            "a Windows host",
            "it has no TSI back-end; set tsi_inet and tsi_unix to off",
        ));
    }
    let requested = (inputs.vsock == Choice::On).then_some(Reason::Requested);
    let routed = (inputs.routes > 0).then_some(Reason::Route);
    let pro: Vec<Reason> = requested.into_iter().chain(routed).chain(inet).chain(unix).collect();
    let attached = !pro.is_empty();
    let reasons = if attached { pro } else { against(inputs, inet, unix) };
    Ok(VsockDecision {
        inet: inet.is_ok(),
        unix: unix.is_ok(),
        reasons,
        attached,
    })
}

fn inet(inputs: &VsockInputs) -> Result<Reason, Reason> {
    match (inputs.vsock, inputs.tsi_inet, inputs.nets) {
        (Choice::Off, ..) => Err(Reason::Refused),
        (_, Choice::On, _) => Ok(Reason::InetRequested),
        (_, Choice::Off, _) => Err(Reason::InetRefused),
        (_, Choice::Auto, 0) => Ok(Reason::InetWithoutNet),
        (_, Choice::Auto, _) => Err(Reason::InetHasNet),
    }
}

fn unix(inputs: &VsockInputs) -> Result<Reason, Reason> {
    match (inputs.vsock, inputs.tsi_unix) {
        (Choice::Off, _) => Err(Reason::Refused),
        (_, Choice::On) => Ok(Reason::UnixRequested),
        (_, Choice::Off) => Err(Reason::UnixRefused),
        (_, Choice::Auto) if !inputs.has_root => Err(Reason::UnixNoRoot),
        (_, Choice::Auto) if inputs.shares > 1 => Err(Reason::UnixOtherShares),
        (_, Choice::Auto) if unix_obstacle(inputs).is_some() => Err(Reason::UnixHost),
        (_, Choice::Auto) => Ok(Reason::UnixOnlyRoot),
    }
}

fn against(inputs: &VsockInputs, inet: Result<Reason, Reason>, unix: Result<Reason, Reason>) -> Vec<Reason> {
    if inputs.vsock == Choice::Off {
        return vec![Reason::Refused];
    }
    [inet, unix].into_iter().filter_map(Result::err).collect()
}

/// What makes UNIX TSI impossible here.
fn unix_obstacle(inputs: &VsockInputs) -> Option<&'static str> {
    if inputs.host_os != HostOs::Linux {
        return Some("a host that is not Linux");
    }
    if inputs.confidential {
        return Some("a confidential machine");
    }
    (!inputs.has_root).then_some("no root share")
}

fn refuse_contradictions(inputs: &VsockInputs) -> Result<(), PlanError> {
    let off_with = [
        (
            inputs.routes > 0,
            "vsock_routes",
            "a route is a port of the vsock device",
        ),
        (
            inputs.tsi_inet == Choice::On,
            "tsi_inet = on",
            "TSI is carried by the vsock device",
        ),
        (
            inputs.tsi_unix == Choice::On,
            "tsi_unix = on",
            "TSI is carried by the vsock device",
        ),
        (
            inputs.published > 0,
            "publish",
            "a port is published through TSI, which the vsock device carries",
        ),
        (
            inputs.published_unix > 0,
            "publish_unix",
            "a UNIX listener is published through TSI, which the vsock device carries",
        ),
        (
            inputs.allow_rules > 0,
            "tsi_allow",
            "a rule is about TSI, which the vsock device carries",
        ),
        (
            inputs.deny_rules > 0,
            "tsi_deny",
            "a rule is about TSI, which the vsock device carries",
        ),
    ];
    if inputs.vsock == Choice::Off
        && let Some((_, other, why)) = off_with.into_iter().find(|(asked, ..)| *asked)
    {
        return Err(contradiction("vsock = off", other, why));
    }
    if inputs.tsi_inet == Choice::On && inputs.nets > 0 {
        return Err(contradiction(
            "tsi_inet = on",
            "nets",
            "INET goes either through TSI or through a net device",
        ));
    }
    if inputs.tsi_unix == Choice::On
        && let Some(obstacle) = unix_obstacle(inputs)
    {
        return Err(contradiction(
            "tsi_unix = on",
            obstacle,
            "there is no folder to look the guest's paths up in",
        ));
    }
    Ok(())
}

/// What is asked for that means nothing without INET TSI, and why not. A rule that is dropped lets a guest go where it was
/// denied to.
fn needs_inet(inputs: &VsockInputs) -> Option<(&'static str, &'static str)> {
    let rule = "a rule is about what goes through INET TSI";
    let asked = [
        (inputs.published, "publish", "a port is published through INET TSI"),
        (inputs.allow_rules, "tsi_allow", rule),
        (inputs.deny_rules, "tsi_deny", rule),
    ];
    let first = asked.into_iter().find(|(count, ..)| *count > 0);
    first.map(|(_, what, why)| (what, why))
}

fn inet_obstacle(inputs: &VsockInputs) -> &'static str {
    if inputs.tsi_inet == Choice::Off {
        "tsi_inet = off"
    } else {
        "nets"
    }
}

fn publish_unix_obstacle(reason: Reason) -> &'static str {
    match reason {
        Reason::UnixRefused => "tsi_unix = off",
        Reason::UnixNoRoot => "no root share",
        Reason::UnixOtherShares => "tsi_unix = auto with more shares than the root",
        _ => "a host without UNIX TSI",
    }
}

const fn contradiction(one: &'static str, other: &'static str, why: &'static str) -> PlanError {
    PlanError::Contradiction { one, other, why }
}

#[cfg(test)]
mod tests;
