//! `cargo xtask bench`.

use std::path::Path;

use anyhow::Result;

use crate::step::{cargo, shown};
use crate::{debian, tools};

/// Of the same version as the library `gungraun` that the benches are built with.
const RUNNER_VERSION: &str = "0.20.0";

/// Installs what counts instructions and system calls, and runs the benches.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    debian::install("valgrind", || Path::new("/usr/bin/valgrind").is_file())?;
    debian::install("strace", || Path::new("/usr/bin/strace").is_file())?;
    let runner = tools::installed("gungraun-runner", RUNNER_VERSION, tools::DEBUG)?;
    let mut bench = cargo(&["bench", "-p", "tessera-benches"]);
    shown(bench.args(arguments).env("GUNGRAUN_RUNNER", runner))
}
