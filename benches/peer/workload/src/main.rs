//! What `cargo xtask versus` times: the same static program in a guest and on the host that the guest runs on.
//!
//! - `peer-workload lay FOLDER` makes the folder and a large file in it; `peer-workload read-laid FOLDER` times the read of it.
//! - `peer-workload serve ADDRESS` answers, for ever, on the ports of [`ports`].
//! - `peer-workload run ADDRESS FOLDER [NAME]...` times files beneath the folder, and the network against that server,
//!   and prints one line for each: `result NAME VALUE UNIT`. Names pick some: `files`, or what of the network.
//!
//! The clock is `CLOCK_MONOTONIC` of the kernel that the program runs on. In a guest that is kvm-clock, which follows
//! the time stamp counter of the host; where the host counts instructions, so does the guest.
#![deny(unsafe_code)]

mod files;
mod network;
mod ports;
mod process_one;
mod report;
mod server;

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["lay", folder] => files::lay(Path::new(folder)),
        ["read-laid", folder] => files::read_laid(Path::new(folder)),
        ["serve", address] => parsed(address).and_then(server::serve),
        ["run", address, folder, names @ ..] => {
            parsed(address).and_then(|address| run(address, Path::new(folder), names))
        }
        _ => Err(io::Error::other("usage: lay FOLDER | read-laid FOLDER | serve ADDRESS | run ADDRESS FOLDER [NAME]...")),
    };
    if let Err(error) = &outcome {
        println!("error: {error}");
    }
    if process_one::is_this() {
        process_one::reboot();
    }
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parsed(address: &str) -> io::Result<Ipv4Addr> {
    address.parse().map_err(|_| io::Error::other("that is no IPv4 address"))
}

fn run(address: Ipv4Addr, folder: &Path, names: &[&str]) -> io::Result<()> {
    let wanted = |name: &str| names.is_empty() || names.contains(&name);
    if process_one::is_this() {
        process_one::set_up()?;
    }
    if wanted("files") {
        files::run(folder)?;
    }
    network::run(address, wanted);
    Ok(())
}
