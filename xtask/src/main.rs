//! `cargo xtask`: the commands of this workspace that are more than one call of cargo.
//!
//! `demo` and `test` do all their own set-up on a Debian machine that has Rust and say what they do. What they fetch is
//! kept in the target folder, under `testbed/`, so that a second run is quick.
#![forbid(unsafe_code)]

mod archive;
mod bench;
mod cases;
mod debian;
mod demo;
mod fuzz;
mod guest_kernel;
mod guest_python;
mod guest_root;
mod lines;
mod outer_host;
mod paths;
mod setup;
mod step;
mod suites;
mod test;
mod tools;
mod versus;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, demo, tests, fuzzing and benches of this workspace"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boots the real guest kernel and lets a program in it fetch a page from a server on the host
    Demo,
    /// Runs everything that CI runs, or only the steps named
    Test {
        /// Steps to run; all when none is named
        steps: Vec<test::Step>,
        /// Only guest cases whose name contains this
        #[arg(long)]
        case: Option<String>,
    },
    /// Fetches and builds what demo and test need, and nothing more
    Setup,
    /// Runs the benches; what follows goes to `cargo bench`
    Bench {
        /// Arguments of `cargo bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures guests of ours and of msb_krun, and the host without one, under repeatable time (some ten minutes)
    Versus {
        /// Where to measure; everywhere when none is named
        sides: Vec<versus::Side>,
    },
    /// Runs what takes too long for every change in guests of the outer host
    Suites {
        /// Suites to run; all when none is named
        suites: Vec<suites::Suite>,
        /// Of the suite debian, only cases whose name contains this
        #[arg(long)]
        case: Option<String>,
    },
    /// Fuzzes one target
    Fuzz {
        /// A file of fuzz/fuzz_targets, without its suffix
        target: String,
        /// For how long
        #[arg(default_value_t = 60)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo => demo::run(),
        Command::Test { steps, case } => test::run(&steps, case.as_deref()),
        Command::Setup => setup::prepare().map(drop),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Versus { sides } => versus::run(&sides),
        Command::Suites { suites, case } => suites::run(&suites, case.as_deref()),
        Command::Fuzz { target, seconds } => fuzz::run(&target, seconds),
    }
}
