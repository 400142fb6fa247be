//! `cargo xtask test`: what CI runs.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::step::{cargo, shown, step};
use crate::{cases, fuzz, setup};

const FUZZ_SECONDS: u64 = 10;

/// A part of the whole test.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// The sources are formatted
    Format,
    /// clippy has nothing to say, also without KVM
    Clippy,
    /// Unit tests, property tests, and the examples in the documentation
    Unit,
    /// Real guests
    Guest,
    /// Each fuzz target for some seconds
    Fuzz,
    /// The documentation builds without a warning
    Docs,
}

/// Runs the steps named, all of them when none is, and goes on after one that failed.
pub(crate) fn run(steps: &[Step], case: Option<&str>) -> Result<()> {
    let chosen = if steps.is_empty() {
        Step::value_variants()
    } else {
        steps
    };
    let mut failed = Vec::new();
    for chosen in chosen {
        let (name, action): (&str, &dyn Fn() -> Result<()>) = match chosen {
            Step::Format => ("format", &format),
            Step::Clippy => ("clippy", &clippy),
            Step::Unit => ("unit tests", &unit),
            Step::Guest => ("guest cases", &|| guest(case)),
            Step::Fuzz => ("fuzzing", &|| fuzz::run_all(FUZZ_SECONDS)),
            Step::Docs => ("documentation", &docs),
        };
        if let Err(error) = step(name, action) {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    shown(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    shown(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    // The plan must be usable where there is no KVM.
    shown(&mut cargo(&[
        "clippy",
        "-p",
        "tessera-machine",
        "--no-default-features",
        "--",
        "-D",
        "warnings",
    ]))
}

fn unit() -> Result<()> {
    shown(&mut cargo(&["test", "--workspace", "--no-fail-fast"]))
}

fn guest(case: Option<&str>) -> Result<()> {
    let bed = setup::prepare()?;
    cases::run(bed.case_names(case.unwrap_or_default())?, &bed.service()?)
}

fn docs() -> Result<()> {
    shown(cargo(&["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings"))
}
