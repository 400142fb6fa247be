//! Fuzzing with cargo-fuzz, which is fetched when it is not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use crate::step::{quiet, shown, step};
use crate::{paths, tools};

const VERSION: &str = "0.13.2";

/// Fuzzes one target for some seconds, and shows what it does and how often it ran.
pub(crate) fn run(target: &str, seconds: u64) -> Result<()> {
    let known = targets()?;
    if !known.iter().any(|name| name == target) {
        bail!("there is no fuzz target {target}; there are: {}", known.join(", "));
    }
    shown(fuzz(&tool()?, target, seconds)?.arg("-print_final_stats=1"))
}

/// Fuzzes every target for some seconds.
pub(crate) fn run_all(seconds: u64) -> Result<()> {
    let tool = tool()?;
    step("building the fuzz targets", || {
        shown(cargo_fuzz(&tool, "build").args(SANITIZER))
    })?;
    let waiting = Mutex::new(targets()?.into_iter());
    let next = || locked(&waiting).next();
    let failed = Mutex::new(Vec::new());
    let fuzz_until_none_waits = || {
        while let Some(target) = next() {
            let fuzzed = fuzz(&tool, &target, seconds).and_then(|mut fuzz| quiet(fuzz.arg("-verbosity=0")));
            match fuzzed {
                Ok(_) => eprintln!("    {target}: nothing found in {seconds} s"),
                Err(error) => {
                    eprintln!("    {target}: FAILED: {error:#}");
                    locked(&failed).push(target);
                }
            }
        }
    };
    // A fuzzer uses one processor.
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(fuzz_until_none_waits))));
    let failed = locked(&failed);
    if !failed.is_empty() {
        bail!("these targets failed: {}", failed.join(", "));
    }
    Ok(())
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What goes wrong in safe Rust panics, and without the address sanitizer the targets build in half the time.
const SANITIZER: [&str; 2] = ["-s", "none"];

fn fuzz(tool: &Path, target: &str, seconds: u64) -> Result<Command> {
    // New inputs go into the first folder; the corpus in the tree is only read.
    let found = paths::target().join("fuzz-corpus").join(target);
    let known = paths::workspace().join("fuzz/corpus").join(target);
    fs::create_dir_all(&found)?;
    let mut command = cargo_fuzz(tool, "run");
    command.args(SANITIZER).arg(target).arg(&found);
    if known.is_dir() {
        command.arg(&known);
    }
    let limit = format!("-max_total_time={seconds}");
    command.args(["--", &limit, "-timeout=25", "-rss_limit_mb=2048"]);
    Ok(command)
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

fn cargo_fuzz(tool: &Path, verb: &str) -> Command {
    let mut command = Command::new(tool);
    command.arg("fuzz").arg(verb).current_dir(paths::workspace());
    // The stable compiler takes the flags of a fuzzer only so.
    command.env("RUSTC_BOOTSTRAP", "1");
    // The fuzz package is no member of the workspace and keeps its own target folder.
    command.env_remove("CARGO_TARGET_DIR");
    command
}

fn tool() -> Result<PathBuf> {
    tools::installed("cargo-fuzz", VERSION, tools::DEBUG)
}
