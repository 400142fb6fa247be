//! A hundred machines one after another, whose devices have run, leave nothing behind. Alone in its process: it counts what the process has.
#![cfg(feature = "kvm")]

mod common;

use std::fs;

use common::{Code, Guest, kvm_is_there};
use machine::{Exit, Spec};

/// Where the console's registers are, and the root share's.
const CONSOLE: u32 = 0xd000_0fa0;
const ROOT: u32 = 0xd000_2fa0;

#[derive(Debug, PartialEq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

fn holdings() -> Holdings {
    let entries = |folder| fs::read_dir(folder).unwrap().count();
    Holdings {
        descriptors: entries("/proc/self/fd"),
        threads: entries("/proc/self/task"),
        mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
    }
}

#[test]
fn a_hundred_machines_leave_nothing_behind() {
    if !kvm_is_there("a_hundred_machines_leave_nothing_behind") {
        return;
    }
    let code = Code::default().take_device(CONSOLE).take_device(ROOT).reset();
    let guest = Guest::new(&code.0);
    let spec = Spec {
        cpus: 2,
        ..guest.spec()
    };
    // A handle outlives its machine, and keeps nothing of it.
    let mut handles = Vec::new();
    let mut run = || {
        let machine = guest.build_as(&spec);
        handles.push(machine.handle());
        assert_eq!(machine.run().unwrap(), Exit::Reset);
    };
    // The first ones make what the process keeps for all: the allocator's arenas, thread stacks that are reused.
    (0..3).for_each(|_| run());
    let before = holdings();
    (0..100).for_each(|_| run());
    let after = holdings();
    assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    // One machine's RAM alone would be a hundred mappings more.
    assert!(after.mappings < before.mappings + 20, "{before:?} became {after:?}");
}
