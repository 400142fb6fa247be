//! Runs cases, each as a process group of its own that is ended at the case's deadline.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::bed::Bed;
use crate::cases::{self, Case};
use crate::scene;

/// What is said when the next name can be taken, and after the report of a case.
const READY: &str = "ready for a case";
const PASSED: &str = "the case passed";
const FAILED: &str = "the case failed";
const LOST: &str = "the case lost its guest";
/// Signs that an emulated processor may have lost the guest: a triple fault, in the words of the program and of the library,
/// and a kernel that has panicked.
const GUEST_GONE: [&str; 3] = [
    "has shut down with a triple fault",
    "TripleFault",
    "the guest's kernel has panicked",
];
/// What is said in between, so that an emulated machine that has died is told from a case that takes long.
const ALIVE: &str = "alive";
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Prints the names that contain `part`, so that whoever deals them out has the longest first.
pub(crate) fn list(mut cases: Vec<Case>, part: &str) -> Result<()> {
    cases.retain(|case| case.name.contains(part));
    cases.sort_by_key(|case| Reverse(case.deadline));
    cases.iter().for_each(|case| println!("{}", case.name));
    Ok(())
}

/// Runs the cases that standard input names.
pub(crate) fn serve(bed: &Bed) -> Result<()> {
    println!("{READY}");
    thread::spawn(|| {
        loop {
            thread::sleep(HEARTBEAT);
            println!("{ALIVE}");
        }
    });
    for name in io::stdin().lines() {
        println!("{}", run(bed, &named(name?.trim())?));
    }
    Ok(())
}

/// Runs a case and prints its line, and all that it said when it failed. Returns the word for how it went.
fn run(bed: &Bed, case: &Case) -> &'static str {
    let start = Instant::now();
    let (failure, said) = outcome(bed, case);
    let hung = start.elapsed() >= case.deadline;
    let seconds = start.elapsed().as_secs_f64();
    let mut report = match &failure {
        None => format!("ok {} ({seconds:.1} s)\n", case.name),
        Some(reason) => format!("FAILED {}: {reason} ({seconds:.1} s)\n", case.name),
    };
    for line in said.lines() {
        match line.strip_prefix(crate::CHECK) {
            Some(check) => report += &format!("    {check}\n"),
            None if failure.is_some() => report += &format!("    | {line}\n"),
            None => {}
        }
    }
    print!("{report}");
    match failure {
        None => PASSED,
        Some(_) if hung || GUEST_GONE.iter().any(|sign| said.contains(sign)) => LOST,
        Some(_) => FAILED,
    }
}

/// Why the case failed, if it did, and all that it said.
fn outcome(bed: &Bed, case: &Case) -> (Option<String>, String) {
    match verdict(bed, case) {
        Ok((Verdict::Ended(status), said)) if status.success() => (None, said),
        Ok((verdict, said)) => (Some(verdict.reason(&said)), said),
        Err(error) => (Some(format!("{error:#}")), String::new()),
    }
}

fn verdict(bed: &Bed, case: &Case) -> Result<(Verdict, String)> {
    let mut transcript = tempfile::tempfile()?;
    let verdict = run_apart(bed, case, &transcript)?;
    Ok((verdict, said(&mut transcript)?))
}

/// Runs one case here; what it does is told on standard output.
pub(crate) fn run_one(bed: &Bed, name: &str) -> Result<()> {
    (named(name)?.check)(bed)
}

fn named(name: &str) -> Result<Case> {
    let mut cases = cases::all().into_iter().chain(cases::debian());
    cases
        .find(|case| case.name == name)
        .with_context(|| format!("there is no case {name}"))
}

enum Verdict {
    Ended(ExitStatus),
    TooLate(Duration),
}

impl Verdict {
    fn reason(&self, said: &str) -> String {
        match self {
            Verdict::TooLate(deadline) => format!("not done after {} s", deadline.as_secs()),
            Verdict::Ended(status) => {
                let error = said.lines().rev().find_map(|line| line.strip_prefix(crate::FAILURE));
                error.map_or_else(|| format!("the case's process ended with {status}"), str::to_owned)
            }
        }
    }
}

fn run_apart(bed: &Bed, case: &Case, transcript: &File) -> Result<Verdict> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--tessera")
        .arg(&bed.tessera)
        .arg("--kernel")
        .arg(&bed.kernel)
        .arg("--root")
        .arg(&bed.root);
    command.args(["case", case.name]).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(transcript.try_clone()?)
        .stderr(transcript.try_clone()?);
    let child = command.spawn().context("cannot start a case")?;
    let group = Pid::from_child(&child);
    let verdict = wait(child, case.deadline)?;
    if matches!(verdict, Verdict::TooLate(_)) {
        write!(&*transcript, "{}", scene::of_group(group.as_raw_nonzero().get()))?;
    }
    // What the case has left running goes with it; a group that is gone already is as good.
    let _ = kill_process_group(group, Signal::KILL);
    Ok(verdict)
}

fn wait(mut child: Child, deadline: Duration) -> Result<Verdict> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    match ended.recv_timeout(deadline) {
        Ok(status) => Ok(Verdict::Ended(status?)),
        Err(_) => Ok(Verdict::TooLate(deadline)),
    }
}

fn said(transcript: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    transcript.rewind()?;
    transcript.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
