//! The embedder changes its group while a machine runs. Alone in its process: the C library asks every thread to.
#![cfg(feature = "kvm")]
#![allow(unsafe_code, reason = "no safe library changes the group of all threads")]

mod common;

use std::sync::mpsc::channel;
use std::thread;

use common::{Guest, HALT, PATIENCE, kvm_is_there};
use machine::Exit;

#[test]
fn setgid_while_vcpus_are_idle_returns() {
    if !kvm_is_there("setgid_while_vcpus_are_idle_returns") {
        return;
    }
    let running = Guest::new(HALT).start(2);
    let (done, returned) = channel();
    thread::spawn(move || {
        // SAFETY: it takes and returns numbers. The group stays as it is.
        done.send(unsafe { libc::setgid(libc::getgid()) })
    });
    let result = returned.recv_timeout(PATIENCE);
    // Also lets a setgid return that waits for the vCPUs, and holds up the end of every thread meanwhile.
    running.handle.stop();
    assert_eq!(running.exit(), Exit::Stopped);
    assert_eq!(result, Ok(0));
}
