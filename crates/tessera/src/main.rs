//! Runs a program from a folder in a microVM.
//!
//! The program is a thin front of the `machine` crate: [`cli`] takes the arguments, [`spec`] makes a `Spec` of them, and
//! [`commands`] has one file for each subcommand. Whatever goes wrong ends in one sentence and status 125; status 124 is a
//! time-out, 126 and 127 are a program that cannot be started, and everything else is the guest's own.

#![forbid(unsafe_code)]

mod bundle;
mod cli;
mod commands;
mod ending;
mod folders;
mod output;
mod spec;
mod terminal;
mod values;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, KernelCommand};

/// What the program ends with when it is itself that failed, as docker and podman do.
const OUR_FAILURE: u8 = 125;

fn main() -> ExitCode {
    output::log_to_stderr();
    let done = match Cli::try_parse() {
        Ok(cli) => dispatch(cli.command),
        Err(error) => return cli::explain(&error),
    };
    done.unwrap_or_else(|error| {
        output::complain(&format!("{error:#}"));
        ExitCode::from(OUR_FAILURE)
    })
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(&args),
        Command::Plan(args) => commands::plan::plan(&args),
        Command::Doctor => commands::doctor::doctor(),
        Command::Kernel(KernelCommand::Fetch { wheel }) => commands::kernel_fetch::fetch(wheel.as_deref()),
        Command::Kernel(KernelCommand::Info { file }) => commands::kernel_info::info(file.as_deref()),
    }
}
