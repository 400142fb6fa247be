//! PID 1 of a tessera guest. See the crate's README for what it does in which order.
//!
//! Built on `std` alone (see build.rs). It is single-threaded: signals, the control port and the end of processes are
//! all descriptors of one `poll`.

#[path = "../src/config.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the library")]
mod config;
#[path = "../src/contract.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the library")]
mod contract;
mod fault;
mod file_systems;
mod json;
mod network;
mod ports;
mod program;
mod read_ahead;
mod read_config;
mod streams;
mod supervise;
mod sys;

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use config::Config;
use fault::Fault;
use streams::Streams;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("this is the init of a tessera guest: it runs as process 1 only");
        return ExitCode::from(contract::Failure::SetUpFailed.shell_status());
    }
    match run() {
        Ok(code) => report(contract::EXIT_CODE_IOCTL, code),
        Err(fault) => report(contract::FAILURE_IOCTL, fault.failure.number()),
    }
    sys::sync();
    let error = sys::reboot();
    eprintln!("tessera-init: cannot reboot: {error}");
    ExitCode::FAILURE
}

fn run() -> Result<u32, Fault> {
    file_systems::mount_those_of_the_kernel();
    let config = read_config::read(contract::CONFIG_PATH).inspect_err(|fault| tell(&mut std::io::stderr(), fault))?;
    let signals = supervise::Signals::open().inspect_err(|fault| tell(&mut std::io::stderr(), fault))?;
    let mut streams = Streams::open(&config).inspect_err(|fault| tell(&mut std::io::stderr(), fault))?;
    let program = start(&config, &streams).inspect_err(|fault| tell(&mut streams.stderr, fault))?;
    // The host's reader of a port sees its end when the last descriptor for it is closed; ours must not be that.
    let control = streams.control.take();
    drop(streams);
    Ok(supervise::until_the_end(program, signals, control))
}

fn start(config: &Config, streams: &Streams) -> Result<program::Pid, Fault> {
    if !config.hostname.is_empty() {
        sys::set_host_name(&config.hostname)
            .map_err(|error| Fault::set_up(format!("cannot set the host name to {:?}: {error}", config.hostname)))?;
    }
    for problem in network::bring_up(config.tsi_inet) {
        warn(streams, &problem);
    }
    for mount in &config.mounts {
        file_systems::mount(mount)?;
    }
    std::env::set_current_dir(&config.cwd)
        .map_err(|error| Fault::set_up(format!("cannot change to the working folder {:?}: {error}", config.cwd)))?;
    program::start(config, streams)
}

fn tell(output: &mut dyn Write, fault: &Fault) {
    // There is nobody else to tell that telling failed.
    let _ = writeln!(output, "tessera: {}", fault.message);
}

fn warn(streams: &Streams, problem: &str) {
    let _ = writeln!(&streams.stderr, "tessera: {}", fault::without_error_number(problem));
}

fn report(command: u32, value: u32) {
    // A root that is not the host's share has no such ioctl; then the host learns of the end by the reboot alone.
    if let Ok(root) = File::open("/") {
        let _ = sys::ioctl_with_value(&root, command, value);
    }
}
