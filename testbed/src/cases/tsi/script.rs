//! Many checks in one guest: a python script there, with one function for each check, that says a line about each.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::peer::Peer;
use crate::CHECK;
use crate::bed::{Bed, Guest};

/// What all scripts begin with.
const COMMON: &str = include_str!("guest/common.py");
/// What a script says last.
const END: &str = "all checks are done";

/// A guest that runs a script from its standard input. Facts are what the script finds in `HOST`.
pub(super) fn guest<'a>(bed: &'a Bed, facts: &[(&str, String)]) -> Guest<'a> {
    let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut words = vec!["python3", "-ISB", "-"];
    words.extend(facts.iter().map(String::as_str));
    bed.guest(&words)
}

/// Runs a script in a guest, and fails when one of its checks does.
pub(super) fn run(guest: &Guest<'_>, peer: &Arc<Peer>, script: &str) -> Result<()> {
    let mut command = guest.command();
    println!("$ {command:?}");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut tessera = command.spawn().context("cannot start tessera")?;
    peer.watch(tessera.id());
    let mut input = tessera.stdin.take().context("no standard input")?;
    let mut errors = tessera.stderr.take().context("no standard error")?;
    let output = tessera.stdout.take().context("no standard output")?;
    let script = format!("{COMMON}\n{script}\nrun_checks({END:?})\n");
    thread::spawn(move || drop(input.write_all(script.as_bytes())));
    let said = thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let (mut done, mut failed) = (false, Vec::new());
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        done |= line == END;
        let failure = line.strip_prefix(CHECK).and_then(|check| check.strip_prefix("FAILED "));
        failed.extend(failure.map(str::to_owned));
    }
    let status = tessera.wait()?;
    println!("stderr: {}\n{status}", said.join().unwrap_or_default());
    ensure!(failed.is_empty(), "failed checks: {}", failed.join("; "));
    ensure!(done, "the script did not reach its end");
    ensure!(status.success(), "tessera ended with {status}");
    Ok(())
}
