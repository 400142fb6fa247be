//! Programs from the package registry, kept in the target folder.

use std::path::PathBuf;

use anyhow::Result;

use crate::paths;
use crate::step::{cargo, shown, step};

/// For programs that only start others: built in half the time.
pub(crate) const DEBUG: &[&str] = &["--debug"];

/// The program of this name and version, built if it is not there yet, with these arguments for cargo.
pub(crate) fn installed(name: &str, version: &str, how: &[&str]) -> Result<PathBuf> {
    let tools = paths::target().join("tools");
    let tool = tools.join("bin").join(name);
    if !tool.is_file() {
        step(&format!("installing {name} {version} into the target folder"), || {
            let mut install = cargo(&["install", "--quiet", "--locked", name, "--version", version, "--root"]);
            shown(install.arg(&tools).args(how))
        })?;
    }
    Ok(tool)
}
