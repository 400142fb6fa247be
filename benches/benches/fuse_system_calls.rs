//! System calls of a share for each FUSE request of a guest, counted over many of a kind. Needs strace; says so where it is
//! missing.
//!
//! Targets: a LOOKUP is one pair of `openat2` and `statx` at the most, a FORGET is none.

use std::collections::BTreeMap;

use benches::fuse::Kind;
use benches::trace::{has_strace, stages};

fn main() {
    if !has_strace() {
        eprintln!("fuse_system_calls: skipped, since it needs strace");
        return;
    }
    println!("{:<18} {:>8} {:>8}  which", "request", "requests", "calls");
    for (kind, name) in Kind::ALL {
        let (requests, calls) = counted(name);
        let all: usize = calls.values().sum();
        println!(
            "{name:<18} {requests:>8} {:>8}  {}",
            each(all, requests),
            shown(&calls, requests)
        );
        match kind {
            Kind::LookupFirst | Kind::LookupAgain => assert!(all <= 2 * requests, "{name} is within its target"),
            Kind::Forget => assert_eq!(all, 0, "{name} is within its target"),
            _ => {}
        }
    }
}

/// How many requests there were, and how often each system call was made for them.
fn counted(name: &str) -> (usize, BTreeMap<String, usize>) {
    let stages = stages(env!("CARGO_BIN_EXE_fuse-cost"), name, "all");
    let of_requests = stages
        .iter()
        .find_map(|(stage, lines)| Some((stage.strip_prefix("requests ")?, lines)));
    let (requests, lines) = of_requests.expect("the marker is in the trace");
    let mut calls = BTreeMap::new();
    for line in lines {
        // "PID name(arguments) = result"
        let name = line.split_whitespace().nth(1).and_then(|call| call.split('(').next());
        *calls.entry(name.unwrap_or("?").to_owned()).or_default() += 1;
    }
    (requests.parse().expect("a number"), calls)
}

fn shown(calls: &BTreeMap<String, usize>, requests: usize) -> String {
    let each = calls
        .iter()
        .map(|(name, count)| format!("{name} {}", each(*count, requests)));
    each.collect::<Vec<_>>().join(", ")
}

fn each(count: usize, requests: usize) -> String {
    let hundredths = count * 100 / requests.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
