//! `cargo xtask bench`.

use anyhow::Result;

use crate::step::{cargo, shown};

/// Runs the benches.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    shown(cargo(&["bench", "-p", "tessera-benches"]).args(arguments))
}
