//! Fuzzing with cargo-fuzz, which is fetched when it is not there.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::paths;
use crate::step::{cargo, shown, step};

const VERSION: &str = "0.13.2";

/// Fuzzes one target for some seconds.
pub(crate) fn run(target: &str, seconds: u64) -> Result<()> {
    let tool = tool()?;
    fuzz(&tool, target, seconds)
}

/// Fuzzes every target for some seconds.
pub(crate) fn run_all(seconds: u64) -> Result<()> {
    let tool = tool()?;
    shown(cargo_fuzz(&tool, "build").args(["-s", "none"]))?;
    for target in targets()? {
        step(&format!("fuzzing {target} for {seconds} s"), || {
            fuzz(&tool, &target, seconds)
        })?;
    }
    Ok(())
}

fn fuzz(tool: &PathBuf, target: &str, seconds: u64) -> Result<()> {
    let limit = format!("-max_total_time={seconds}");
    shown(cargo_fuzz(tool, "run").args([
        "-s",
        "none",
        target,
        "--",
        &limit,
        "-verbosity=0",
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]))
}

fn targets() -> Result<Vec<String>> {
    let folder = paths::workspace().join("fuzz/fuzz_targets");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn cargo_fuzz(tool: &PathBuf, verb: &str) -> Command {
    let mut command = Command::new(tool);
    command.arg("fuzz").arg(verb).current_dir(paths::workspace());
    // The stable compiler takes the flags of a fuzzer only so.
    command.env("RUSTC_BOOTSTRAP", "1");
    // The fuzz package is no member of the workspace and keeps its own target folder.
    command.env_remove("CARGO_TARGET_DIR");
    command
}

fn tool() -> Result<PathBuf> {
    let tools = paths::target().join("tools");
    let tool = tools.join("bin/cargo-fuzz");
    if !tool.is_file() {
        step(
            &format!("installing cargo-fuzz {VERSION} into the target folder"),
            || {
                shown(
                    cargo(&[
                        "install",
                        "--quiet",
                        "--locked",
                        "cargo-fuzz",
                        "--version",
                        VERSION,
                        "--root",
                    ])
                    .arg(&tools),
                )
            },
        )?;
    }
    Ok(tool)
}
