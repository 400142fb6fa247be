//! The built binary as process 1 of a process namespace, on a root with nothing but itself. What needs the guest's kernel
//! (exit codes, ports, shares) is tried in the test bed.
//!
//! Needs user namespaces and util-linux; where they are not to be had the tests say so and pass.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use guest_init::{Config, Mount, MountKind, Rlimit, contract, init};

const NAMESPACES: [&str; 8] = [
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--mount",
    "--net",
    "--uts",
    "--ipc",
];

fn config(program: &str) -> Config {
    Config {
        args: vec![program.into()],
        cwd: "/".into(),
        ..Config::default()
    }
}

/// None if this machine cannot.
fn run(config: Option<&[u8]>) -> Option<Output> {
    let root = tempfile::tempdir().unwrap();
    let path = |absolute: &str| root.path().join(absolute.trim_start_matches('/'));
    std::fs::create_dir(path("/.tessera")).unwrap();
    std::fs::write(path(contract::INIT_PATH), init()).unwrap();
    std::fs::set_permissions(path(contract::INIT_PATH), PermissionsExt::from_mode(0o755)).unwrap();
    if let Some(config) = config {
        std::fs::write(path(contract::CONFIG_PATH), config).unwrap();
    }
    if !Command::new("unshare")
        .args(NAMESPACES)
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        eprintln!("skipped: no user namespaces, or no unshare(1)");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .args(NAMESPACES)
        .arg("--root")
        .arg(root.path())
        .arg(contract::INIT_PATH);
    Some(command.output().unwrap())
}

/// A reset ends the namespace instead of the machine, with SIGHUP (pid_namespaces(7)).
fn assert_ended_with(output: Option<Output>, sentence: &str) {
    let Some(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(sentence), "it said {said:?}");
    let hung_up = output.status.signal() == Some(1) || output.status.code() == Some(129);
    assert!(hung_up, "it ended with {}", output.status);
}

#[test]
fn program_runs_and_its_end_resets_the_machine() {
    // The only program there is the init, which as another process says what it is.
    let config = config(contract::INIT_PATH).to_json();
    assert_ended_with(run(Some(&config)), "it runs as process 1 only");
}

#[test]
fn missing_program_is_named_before_the_reset() {
    let config = config("no-such-program").to_json();
    assert_ended_with(
        run(Some(&config)),
        r#"tessera: the program "no-such-program" is in no folder of PATH"#,
    );
}

#[test]
fn missing_configuration_is_named_before_the_reset() {
    assert_ended_with(
        run(None),
        "tessera: cannot read /.tessera/config.json: No such file or directory\n",
    );
}

#[test]
fn broken_configuration_is_placed_before_the_reset() {
    assert_ended_with(run(Some(b"{\"args\":[}")), "is not JSON: a value is missing at byte 9");
}

#[test]
fn missing_folder_to_work_in_is_named_before_the_reset() {
    let config = Config {
        cwd: "/nowhere".into(),
        ..config("sh")
    }
    .to_json();
    assert_ended_with(
        run(Some(&config)),
        r#"tessera: cannot change to the working folder "/nowhere""#,
    );
}

#[test]
fn share_that_is_not_there_is_named_before_the_reset() {
    let share = Mount {
        kind: MountKind::Virtiofs,
        tag: "code".into(),
        target: "/mnt".into(),
        read_only: false,
    };
    let config = Config {
        mounts: vec![share],
        ..config("sh")
    }
    .to_json();
    assert_ended_with(run(Some(&config)), r#"cannot mount the share "code" on "/mnt""#);
}

#[test]
fn limit_that_is_refused_is_named_before_the_reset() {
    let limit = Rlimit {
        resource: 99,
        soft: 1,
        hard: 2,
    };
    let config = Config {
        rlimits: vec![limit],
        ..config(contract::INIT_PATH)
    }
    .to_json();
    assert_ended_with(run(Some(&config)), "tessera: cannot limit resource 99 to 1 (at most 2)");
}
