//! Guest cases, dealt out to processes that run them: a name goes in, a report comes out.
//!
//! Each process is `guest-cases serve`, on this machine or in an emulated one of its own. So the cases keep all
//! processors busy, and an emulated machine that dies costs the case that it was running and no other.

use std::io::Write;
use std::process::Child;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::lines::Lines;
use crate::setup::Service;

/// What `guest-cases serve` says when it can take a name, and after the report of a case.
const READY: &str = "ready for a case";
const PASSED: &str = "the case passed";
const FAILED: &str = "the case failed";
/// A guest hung, had a triple fault, or its kernel panicked.
const LOST: &str = "the case lost its guest";
/// What it says every few seconds in between.
const ALIVE: &str = "alive";

/// A machine that is silent for so long has died under the emulation; each case has a deadline of its own.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a case is begun whose process or machine ends early, or whose guest is lost on an emulated machine: QEMU 7.2
/// changes the word of pending interrupts without a lock at a guest's exit, and what that costs is a guest now and then.
const ATTEMPTS: usize = 2;

/// Runs these cases; fails when one fails.
pub(crate) fn run(names: Vec<String>, service: &Service<'_>) -> Result<()> {
    let workers = service.workers().min(names.len());
    let waiting = Mutex::new(names.into_iter());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..workers {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                let mut worker = Worker::new(|| service.start(number), service.is_emulated());
                while let Some(name) = next() {
                    let _ = sender.send(worker.run(&name));
                }
            });
        }
    });
    drop(sender);
    let outcomes: Vec<_> = outcomes.iter().collect();
    let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    println!("{} passed, {} failed", outcomes.len() - failures.len(), failures.len());
    // Once more, where a reader who has only the end of a log finds it.
    failures.iter().for_each(|error| println!("{error:#}"));
    ensure!(failures.is_empty(), "{} guest cases failed", failures.len());
    Ok(())
}

/// One that runs cases in a process, which is started when the first one comes and again when it has ended early.
struct Worker<Start> {
    start: Start,
    is_emulated: bool,
    server: Option<Server>,
}

/// How a case ended.
#[derive(PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Lost,
}

impl<Start: Fn() -> Result<Child>> Worker<Start> {
    fn new(start: Start, is_emulated: bool) -> Self {
        Self {
            start,
            is_emulated,
            server: None,
        }
    }

    /// Runs a case and prints its report, whose first line is the error when the case failed.
    fn run(&mut self, name: &str) -> Result<()> {
        for attempt in 1..=ATTEMPTS {
            match self.attempt(name) {
                Ok((End::Lost, report)) if self.is_emulated && attempt < ATTEMPTS => {
                    self.server = None;
                    println!("{report}\nagain {name}: on a fresh machine");
                }
                Ok((end, report)) => {
                    println!("{report}");
                    ensure!(end == End::Passed, "{}", report.lines().next().unwrap_or(name));
                    return Ok(());
                }
                Err(error) => {
                    self.server = None;
                    println!("again {name}: {error:#}");
                }
            }
        }
        bail!("FAILED {name}: it could not be run")
    }

    fn attempt(&mut self, name: &str) -> Result<(End, String)> {
        let server = match &mut self.server {
            Some(server) => server,
            none => none.insert(Server::new((self.start)()?)?),
        };
        server.run(name)
    }
}

/// A running `guest-cases serve`.
struct Server {
    process: Child,
    lines: Lines,
}

impl Server {
    fn new(mut process: Child) -> Result<Self> {
        let lines = Lines::of(process.stdout.take().context("no standard output")?);
        let server = Self { process, lines };
        while server.line()? != READY {}
        Ok(server)
    }

    fn run(&mut self, name: &str) -> Result<(End, String)> {
        let input = self.process.stdin.as_mut().context("no standard input")?;
        writeln!(input, "{name}").context("the process takes no more names")?;
        let mut report = Vec::new();
        loop {
            match self.line()? {
                line if line == PASSED => return Ok((End::Passed, report.join("\n"))),
                line if line == FAILED => return Ok((End::Failed, report.join("\n"))),
                line if line == LOST => return Ok((End::Lost, report.join("\n"))),
                line => report.push(line),
            }
        }
    }

    fn line(&self) -> Result<String> {
        loop {
            match self.lines.next_within(SILENCE)? {
                Some(line) if line == ALIVE => {}
                Some(line) => return Ok(line),
                None => bail!("the process or machine that ran it ended early"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to lose, and may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
