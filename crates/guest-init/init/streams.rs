//! The program's standard streams, and the way of the host's signals.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::config::Config;
use crate::contract::{CONTROL_PORT, STDERR_PORT, STDIN_PORT, STDOUT_PORT};
use crate::fault::Fault;
use crate::ports::{self, Nodes};

const CONSOLE: &str = "/dev/hvc0";
const O_NOCTTY: i32 = 0o400;

/// Open descriptors. A port where the host has one; else the console; else what the kernel gave us.
pub(crate) struct Streams {
    pub(crate) stdin: File,
    pub(crate) stdout: File,
    pub(crate) stderr: File,
    /// The console, if it is to be the program's controlling terminal.
    pub(crate) terminal: Option<File>,
    pub(crate) control: Option<File>,
}

impl Streams {
    pub(crate) fn open(config: &Config) -> Result<Self, Fault> {
        let wanted = config.ports;
        let nodes = ports::wait_for(&names(config)).map_err(Fault::set_up)?;
        let terminal = if config.terminal { Some(open_terminal()?) } else { None };
        let output = |name, wanted, inherited: &dyn AsFd| match (wanted, &terminal) {
            (true, _) => open_port(&nodes, name, ports::open_to_write),
            (false, Some(terminal)) => duplicate(terminal),
            (false, None) => open_console().or_else(|_| duplicate(inherited)),
        };
        let stdout = output(STDOUT_PORT, wanted.stdout, &std::io::stdout())?;
        let stderr = output(STDERR_PORT, wanted.stderr, &std::io::stderr())?;
        let stdin = match (wanted.stdin, &terminal) {
            (true, _) => open_port(&nodes, STDIN_PORT, ports::open_to_read)?,
            (false, Some(terminal)) => duplicate(terminal)?,
            (false, None) => open_nothing()?,
        };
        let control = if wanted.control {
            Some(open_port(&nodes, CONTROL_PORT, ports::open_to_read)?)
        } else {
            None
        };
        Ok(Self {
            stdin,
            stdout,
            stderr,
            terminal,
            control,
        })
    }
}

fn names(config: &Config) -> Vec<&'static str> {
    let ports = config.ports;
    let all = [
        (ports.stdin, STDIN_PORT),
        (ports.stdout, STDOUT_PORT),
        (ports.stderr, STDERR_PORT),
        (ports.control, CONTROL_PORT),
    ];
    all.into_iter()
        .filter_map(|(wanted, name)| wanted.then_some(name))
        .collect()
}

fn open_port(nodes: &Nodes, name: &str, open: fn(&Nodes, &str) -> std::io::Result<File>) -> Result<File, Fault> {
    open(nodes, name).map_err(|error| Fault::set_up(format!("cannot open the console port {name}: {error}")))
}

fn open_terminal() -> Result<File, Fault> {
    ports::open_when_there(|| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_NOCTTY)
            .open(CONSOLE)
    })
    .map_err(|error| Fault::set_up(format!("cannot open the terminal {CONSOLE}: {error}")))
}

fn open_console() -> std::io::Result<File> {
    OpenOptions::new().write(true).custom_flags(O_NOCTTY).open(CONSOLE)
}

/// Nobody types on a console that is no terminal: a program that reads is to see the end, not to wait for ever.
fn open_nothing() -> Result<File, Fault> {
    File::open("/dev/null").or_else(|_| duplicate(&std::io::stdin()))
}

fn duplicate(original: &(impl AsFd + ?Sized)) -> Result<File, Fault> {
    original
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|error| Fault::set_up(format!("cannot duplicate a descriptor: {error}")))
}
