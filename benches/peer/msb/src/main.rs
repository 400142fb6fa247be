//! Boots a libkrunfw bundle with `msb_krun`, its root share a folder, and a program of that folder as process 1.
//!
//! `peer-msb KERNEL ROOT PROGRAM [ARGUMENT]...`. Each setting stays at the crate's default, but that sockets of the
//! guest reach the host by TSI: a guest without a net device has no network in it otherwise. The crate's own init is
//! left out: the published one is for another architecture (the program has to mount what it needs, and to reboot).
#![forbid(unsafe_code)]

use std::process::ExitCode;

use msb_krun::VmBuilder;

/// As much as the other side of the comparison gets.
const MEMORY_MIB: usize = 512;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, root, program, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: peer-msb KERNEL ROOT PROGRAM [ARGUMENT]...");
        return ExitCode::FAILURE;
    };
    let machine = VmBuilder::new()
        .machine(|machine| machine.vcpus(1).memory_mib(MEMORY_MIB).enable_inet_hijack(true))
        .kernel(|choice| choice.krunfw_path(kernel).init_path(program))
        .fs(|share| share.root(root))
        .exec(|start| start.path(program).args(rest))
        .build();
    // `enter` ends the process with the guest: it returns only what kept the guest from starting.
    match machine.and_then(|machine| machine.enter()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
