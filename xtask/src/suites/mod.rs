//! `cargo xtask suites`: what takes too long for every change, always in the outer host.

mod debian;
mod posix;

use anyhow::Result;
use clap::ValueEnum;

/// Something to be run in guests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// pjdfstest and fsx in guests, and pjdfstest on the outer host's tmpfs
    Posix,
    /// apt, python3, git and tar in guests whose root is a Debian made by debootstrap
    Debian,
}

/// Runs the suites named, all of them when none is; stops at one that fails.
pub(crate) fn run(suites: &[Suite], case: Option<&str>) -> Result<()> {
    let suites = if suites.is_empty() {
        Suite::value_variants()
    } else {
        suites
    };
    for suite in suites {
        match suite {
            Suite::Posix => posix::run()?,
            Suite::Debian => debian::run(case.unwrap_or_default())?,
        }
    }
    Ok(())
}
