//! A signal that the embedder has every thread of its own block, to wait for it, is not taken by a machine. It has no harness,
//! whose main thread would not block it.
#![allow(unsafe_code, reason = "no safe library sends or awaits a real-time signal")]

#[cfg(feature = "kvm")]
mod common;

#[cfg(not(feature = "kvm"))]
fn main() {}

#[cfg(feature = "kvm")]
fn main() {
    use common::{Guest, HALT, kvm_is_there};
    use machine::Exit;

    vmm_sys_util::signal::block_signal(libc::SIGRTMIN()).unwrap();
    if !kvm_is_there("signal_of_the_embedder_is_not_taken_while_vcpus_are_idle") {
        return;
    }
    let running = Guest::new(HALT).start(2);
    // SAFETY: it takes and returns numbers; all threads of this process block the signal.
    assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGRTMIN()) }, 0);
    running.pause();
    running.handle.stop();
    assert_eq!(running.exit(), Exit::Stopped);
    assert!(is_pending(libc::SIGRTMIN()), "the machine has taken it");
}

#[cfg(feature = "kvm")]
fn is_pending(signal: libc::c_int) -> bool {
    let mut pending = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigpending fills the set, which sigismember then reads.
    unsafe {
        assert_eq!(libc::sigpending(pending.as_mut_ptr()), 0);
        libc::sigismember(pending.as_ptr(), signal) == 1
    }
}
