//! `tessera run`: what it refuses before anything is started, and how it ends with guests of a few instructions.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::common::{OUR_FAILURE, complaint, one_sentence, tessera};
use crate::guest::{self, DevKvm, FAULTS, RESETS, SPINS};

/// A home with a root folder `root` and a kernel `vmlinux` in it.
fn home_with(code: &[u8]) -> TempDir {
    let home = tempfile::tempdir().expect("a temporary folder");
    guest::lay_out(home.path(), code);
    home
}

/// What `run` complains about with these arguments before the root folder.
fn refusal(args: &[&str]) -> String {
    let home = home_with(RESETS);
    complaint(
        home.path(),
        &[&["run", "--kernel", "vmlinux"], args, &["root"]].concat(),
    )
}

fn run(home: &Path, args: &[&str]) -> Output {
    let args = [&["run", "-m", "32", "--kernel", "vmlinux"], args, &["root"]].concat();
    tessera(home).args(args).output().expect("it can be run")
}

/// All but the warning that a KVM of the lower grade gets.
fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    stderr
        .lines()
        .filter(|line| !line.contains("warning: "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn root_folder_that_does_not_exist_is_named() {
    let home = home_with(RESETS);
    let sentence = complaint(home.path(), &["run", "--kernel", "vmlinux", "/nowhere"]);
    assert_eq!(sentence, "the root folder /nowhere does not exist");
}

#[test]
fn root_that_is_a_file_is_named() {
    let home = home_with(RESETS);
    let sentence = complaint(home.path(), &["run", "--kernel", "vmlinux", "vmlinux"]);
    assert!(sentence.ends_with("/vmlinux is not a folder"), "{sentence}");
}

#[test]
fn shared_folder_that_does_not_exist_is_named() {
    let sentence = refusal(&["-v", "/nowhere:/mnt"]);
    assert_eq!(sentence, "the shared folder /nowhere does not exist");
}

#[test]
fn file_that_is_no_kernel_is_named() {
    let home = home_with(RESETS);
    fs::write(home.path().join("notes"), "no kernel").expect("a temporary folder");
    let sentence = complaint(home.path(), &["run", "--kernel", "notes", "root"]);
    assert!(sentence.starts_with("notes is not a kernel: "), "{sentence}");
}

#[test]
fn kernel_that_does_not_exist_is_named() {
    let home = home_with(RESETS);
    let sentence = complaint(home.path(), &["run", "--kernel", "nothing", "root"]);
    assert!(sentence.starts_with("nothing cannot be read: "), "{sentence}");
}

#[test]
fn without_a_kernel_it_tells_how_to_get_one() {
    let home = home_with(RESETS);
    let sentence = complaint(home.path(), &["run", "root"]);
    assert_eq!(
        sentence,
        "there is no guest kernel yet: run `tessera kernel fetch`, or give one with --kernel"
    );
}

#[test]
fn too_little_memory_is_refused_with_the_least_there_must_be() {
    let sentence = refusal(&["-m", "1"]);
    assert!(
        sentence.starts_with("1 MiB of memory are too little for this kernel: it needs 2 MiB"),
        "{sentence}"
    );
}

#[test]
fn variable_that_cannot_be_carried_is_named() {
    for (variable, part) in [
        ("=x", "name of the environment variable is empty"),
        ("NOT_SET", "NOT_SET"),
    ] {
        let sentence = refusal(&["-e", variable]);
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn computer_without_kvm_is_told_so() {
    let Some(command) = guest::on_computer_with(DevKvm::Missing, "computer_without_kvm_is_told_so") else {
        return;
    };
    let sentence = refusal_of(command);
    assert!(sentence.starts_with("there is no /dev/kvm: "), "{sentence}");
}

#[test]
fn user_who_may_not_use_kvm_is_told_so() {
    let Some(command) = guest::on_computer_with(DevKvm::Forbidden, "user_who_may_not_use_kvm_is_told_so") else {
        return;
    };
    let sentence = refusal_of(command);
    assert!(
        sentence.starts_with("permission to open /dev/kvm is denied: "),
        "{sentence}"
    );
}

fn refusal_of(mut command: Command) -> String {
    let home = home_with(RESETS);
    command
        .current_dir(&home)
        .args(["run", "-m", "32", "--kernel", "vmlinux", "root"])
        .stdin(Stdio::null());
    one_sentence(&command.output().expect("it can be run"))
}

#[test]
fn guest_that_resets_ends_with_status_0() {
    if !guest::has_kvm("guest_that_resets_ends_with_status_0") {
        return;
    }
    let home = home_with(RESETS);
    let output = run(home.path(), &[]);
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""));
}

#[test]
fn guest_that_never_ends_is_stopped_by_the_timeout() {
    if !guest::has_kvm("guest_that_never_ends_is_stopped_by_the_timeout") {
        return;
    }
    let home = home_with(SPINS);
    let output = run(home.path(), &["--timeout", "1s"]);
    let sentence = "tessera: the machine was stopped: its time of 1 s was over";
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(124), sentence));
}

#[test]
fn guest_that_faults_ends_with_our_status_and_a_sentence() {
    if !guest::has_kvm("guest_that_faults_ends_with_our_status_and_a_sentence") {
        return;
    }
    let home = home_with(FAULTS);
    let output = run(home.path(), &["--timeout", "30s"]);
    assert_eq!(output.status.code(), Some(OUR_FAILURE));
    assert!(
        said(&output).starts_with("tessera: the machine cannot go on: vCPU 0 "),
        "{}",
        said(&output)
    );
}

/// The guest has no program that could take the signals: three of them stop the machine.
#[test]
fn signals_that_nobody_takes_stop_the_machine() {
    if !guest::has_kvm("signals_that_nobody_takes_stop_the_machine") {
        return;
    }
    let home = home_with(SPINS);
    let mut command = Command::new(guest::program());
    command
        .args(["run", "-m", "32", "--timeout", "60s", "--kernel", "vmlinux", "root"])
        .current_dir(&home);
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be run");
    let pid = rustix::process::Pid::from_child(&child);
    wait_until_it_takes_signals(pid);
    // Several that wait together count as one, so there is no telling how many it takes.
    let status = loop {
        match child.try_wait().expect("it can be waited for") {
            Some(status) => break status,
            None => rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs"),
        }
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(128 + 15));
}

fn wait_until_it_takes_signals(pid: rustix::process::Pid) {
    const SIGTERM_BIT: u64 = 1 << 14;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it runs");
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .map(str::trim);
        if caught
            .and_then(|mask| u64::from_str_radix(mask, 16).ok())
            .is_some_and(|mask| mask & SIGTERM_BIT != 0)
        {
            return;
        }
        std::thread::yield_now();
    }
}
