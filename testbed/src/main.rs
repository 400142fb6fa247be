//! Real guests: a list of cases that boot the guest kernel, most of them through the program `tessera` as its user would.
//!
//! `cargo xtask test guest` runs it, on this machine or on an emulated one. Each case is a process of its own with a
//! deadline, so that one that hangs or crashes takes nothing with it.

mod bed;
mod blob;
mod cases;
mod demo;
mod metadata;
mod pseudo_terminal;
mod real_mode;
mod runner;
mod scene;
mod server;
mod stat;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::bed::Bed;

#[derive(Parser)]
#[command(about = "Boots real guests and checks what they do")]
struct Arguments {
    /// The program under test
    #[arg(long)]
    tessera: PathBuf,
    /// The guest kernel
    #[arg(long)]
    kernel: PathBuf,
    /// A root folder with busybox and wget, or a Debian
    #[arg(long)]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the cases, those first that may take longest
    List {
        /// Only those whose name contains this
        #[arg(default_value = "")]
        part: String,
        /// Those whose root folder is a Debian, in place of the others
        #[arg(long)]
        debian: bool,
    },
    /// Runs the cases whose names come from standard input, each in a process of its own
    Serve,
    /// Runs one case in this process
    Case {
        /// Its whole name
        name: String,
    },
    /// Shows a guest that fetches a page from a server on the host
    Demo,
}

/// How the last words of a case begin that failed.
const FAILURE: &str = "failure: ";
/// How each line begins that a case of many checks says about one of them; they are always shown.
const CHECK: &str = "check: ";

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{FAILURE}{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let Arguments {
        tessera,
        kernel,
        root,
        command,
    } = arguments;
    let bed = Bed { tessera, kernel, root };
    match command {
        Command::List { part, debian: false } => runner::list(cases::all(), &part),
        Command::List { part, debian: true } => runner::list(cases::debian(), &part),
        Command::Serve => runner::serve(&bed),
        Command::Case { name } => runner::run_one(&bed, &name),
        Command::Demo => demo::run(&bed),
    }
}
