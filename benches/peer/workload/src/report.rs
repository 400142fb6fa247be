//! The lines that are printed.

use std::io::{self, Write};
use std::time::Duration;

/// Prints the time of one of `count` rounds.
pub(crate) fn each(name: &str, elapsed: Duration, count: u32) {
    let microseconds = elapsed.as_secs_f64() * 1e6 / f64::from(count);
    line(&format!("result {name} {microseconds:.2} us"));
}

/// Prints how many bytes went through in a second.
pub(crate) fn throughput(name: &str, elapsed: Duration, bytes: usize) {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    line(&format!("result {name} {:.1} MiB/s", mebibytes / elapsed.as_secs_f64()));
}

/// Prints why there is no value.
pub(crate) fn failed(name: &str, why: &str) {
    line(&format!("failed {name} {why}"));
}

fn line(text: &str) {
    let mut out = io::stdout().lock();
    // A console that is gone leaves nobody to tell.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
