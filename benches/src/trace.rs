//! Programs of this folder under strace: they say by markers in which stage they are.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// How a marker begins.
const MARKER: &str = "stage ";

/// Tells the tracer what comes now; in one write, so that it is one line of the trace.
///
/// # Panics
/// Without a stderr.
pub fn mark(stage: &str) {
    io::stderr()
        .write_all(format!("{MARKER}{stage}\n").as_bytes())
        .expect("stderr is there");
}

/// Whether there is a tracer.
#[must_use]
pub fn has_strace() -> bool {
    let version = Command::new("strace").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// The system calls of a program by stage, a line each. `calls` names those that are wanted besides `write`, which makes
/// the markers, in the words of strace.
///
/// # Panics
/// When the program fails.
#[must_use]
pub fn stages(program: &str, argument: &str, calls: &str) -> BTreeMap<String, Vec<String>> {
    let trace = tempfile::NamedTempFile::new().expect("a temporary file");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", &format!("trace={calls},write"), "-o"])
        .arg(trace.path())
        .args([program, argument])
        .stderr(Stdio::null())
        .status()
        .expect("strace runs");
    assert!(status.success(), "{program} {argument} has failed");
    let mut stages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut stage = String::new();
    for line in std::fs::read_to_string(trace.path()).expect("a trace").lines() {
        if let Some((_, rest)) = line.split_once("\"stage ") {
            rest.split_once("\\n")
                .map_or(rest, |(name, _)| name)
                .clone_into(&mut stage);
            stages.entry(stage.clone()).or_default();
        } else if !line.contains("resumed>") {
            // A call that another thread interrupts stands in two lines; the first has its arguments.
            stages.entry(stage.clone()).or_default().push(line.to_owned());
        }
    }
    stages
}
