//! `tessera run`: plans a machine, builds it, and runs it until its program ends.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use anyhow::Context;
use machine::{Exit, Handle, HostStdio, Limits, Resources, Spec, Stdio, Stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::RunArgs;
use crate::commands::doctor;
use crate::ending::ending;
use crate::spec::spec;
use crate::terminal::{RawTerminal, Size, size_of};
use crate::watch::{Guest, Stop, Watch};
use crate::{bundle, folders, output};

/// What the guest's init runs when nothing is said.
const SHELL: &str = "/bin/sh";

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    allow_many_descriptors();
    let spec = wanted(args)?;
    folders::check(&spec)?;
    let kernel = bundle::open_kernel(args.machine.kernel.as_deref())?;
    let plan = machine::plan(&spec, &Limits::new(kernel.traits().clone()))?;
    let resources = Resources {
        kernel,
        initramfs: None,
        stdio: host_stdio()?,
    };
    let machine = machine::build(&plan, resources)?;
    if doctor::virtualisation().is_none() {
        output::warn("the processor shows neither vmx nor svm, so Linux is not likely to boot: see `tessera doctor`");
    }
    let (exit, stop) = attend(machine, args)?;
    let ending = ending(exit, stop, spec.command.first().map_or(SHELL, String::as_str));
    if let Some(message) = &ending.message {
        output::complain(message);
    }
    Ok(ExitCode::from(ending.status))
}

/// The guest's files and connections are descriptors of this process; the usual soft limit of 1024 is for programs that
/// still use `select(2)`. A refusal leaves it as it was.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

fn wanted(args: &RunArgs) -> anyhow::Result<Spec> {
    let net = [args.net.into()];
    Ok(spec(&args.machine, &net, streams(), |name| std::env::var_os(name))?)
}

/// Runs the machine with the terminal raw; when this returns the terminal is as it was.
fn attend(machine: machine::Machine, args: &RunArgs) -> anyhow::Result<(Exit, Option<Stop>)> {
    let watch = Watch::start(&machine.handle(), args.machine.timeout, terminal_size)
        .context("signals cannot be passed on to the guest")?;
    let raw = io::stdin()
        .is_terminal()
        .then(|| RawTerminal::new(io::stdin()))
        .transpose();
    let raw = raw.context("the terminal cannot be made raw")?;
    let exit = machine.run()?;
    drop(raw);
    Ok((exit, watch.reason()))
}

impl Guest for Handle {
    fn signal(&self, number: u8) -> bool {
        Self::signal(self, number)
    }

    fn stop(&self) {
        Self::stop(self);
    }

    fn resize(&self, size: Size) {
        Self::resize(self, size.columns, size.rows);
    }
}

/// A terminal is the guest's terminal too; whatever else is a pipe with an end.
fn streams() -> Stdio {
    let stream = |is_terminal| if is_terminal { Stream::Terminal } else { Stream::Pipe };
    Stdio {
        stdin: stream(io::stdin().is_terminal()),
        stdout: stream(io::stdout().is_terminal()),
        stderr: stream(io::stderr().is_terminal()),
    }
}

fn terminal_size() -> Option<Size> {
    size_of(io::stdin())
        .or_else(|| size_of(io::stdout()))
        .or_else(|| size_of(io::stderr()))
}

fn host_stdio() -> anyhow::Result<HostStdio> {
    let own = |stream: BorrowedFd<'_>| -> anyhow::Result<Option<OwnedFd>> {
        Ok(Some(
            stream
                .try_clone_to_owned()
                .context("a standard stream cannot be shared with the guest")?,
        ))
    };
    Ok(HostStdio {
        stdin: own(io::stdin().as_fd())?,
        stdout: own(io::stdout().as_fd())?,
        stderr: own(io::stderr().as_fd())?,
    })
}
