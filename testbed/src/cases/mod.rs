//! The cases, by subject.

mod console;
mod cpus;
mod debian;
mod embedding;
mod errors;
mod irqchip;
mod kvm;
mod lifecycle;
mod limits;
mod memory;
mod network;
mod shares;
mod tsi;

use std::time::Duration;

use anyhow::Result;

use crate::bed::Bed;

/// Something that must hold, to be checked with a real guest.
pub(crate) struct Case {
    /// Subject, condition, outcome.
    pub(crate) name: &'static str,
    /// When it counts as hung.
    pub(crate) deadline: Duration,
    /// Fails with what is wrong.
    pub(crate) check: fn(&Bed) -> Result<()>,
}

/// A deadline for some guests: a tenth of it suffices on an emulated machine that has its processors for itself.
const SHORT: Duration = Duration::from_secs(180);
/// For many processors or many bytes.
const LONG: Duration = Duration::from_secs(400);

/// A case is named as its function is.
macro_rules! cases {
    ($deadline:expr; $($check:ident),+ $(,)?) => {
        vec![$($crate::cases::Case { name: stringify!($check), deadline: $deadline, check: $check }),+]
    };
}
pub(crate) use cases;

/// The cases whose root folder is a Debian.
pub(crate) fn debian() -> Vec<Case> {
    debian::cases()
}

/// All others, in the order in which they are run.
pub(crate) fn all() -> Vec<Case> {
    [
        kvm::cases(),
        lifecycle::cases(),
        errors::cases(),
        embedding::cases(),
        console::cases(),
        shares::cases(),
        limits::cases(),
        irqchip::cases(),
        memory::cases(),
        network::cases(),
        tsi::cases(),
        cpus::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
