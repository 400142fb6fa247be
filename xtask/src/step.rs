//! Saying what is done, doing it, and saying how long it took.

use std::io::IsTerminal;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Announces a step and times it.
pub(crate) fn step<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let outcome = action();
    let word = if outcome.is_ok() { "done" } else { "FAILED" };
    eprintln!("    {word} after {:.1} s", start.elapsed().as_secs_f64());
    outcome
}

/// Runs a command whose output the user is to see.
pub(crate) fn shown(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{} ended with {status}", line_of(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to its standard output; what it wrote at all is shown only when it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

/// `cargo` of the toolchain that runs us, in the workspace; a person sees its progress, a log does not.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::paths::workspace());
    if !std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_QUIET", "true");
    }
    command
}

/// The command as a person would type it.
fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
