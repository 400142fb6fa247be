//! `tessera kernel` and `tessera doctor`. No test downloads anything: pip is a script of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{OUR_FAILURE, complaint, one_sentence, tessera};

/// Puts a `pip` into the home that does what the script says; `$D` is the folder it is to download to.
fn fake_pip(home: &Path, name: &str, script: &str) {
    let path = home.join(name);
    let text = format!("#!/bin/sh\nfor D; do :; done\n{script}\n");
    fs::write(&path, text).expect("a temporary folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a temporary folder");
}

fn fetch(home: &Path) -> String {
    let path = format!("{}:/usr/bin:/bin", home.display());
    one_sentence(
        &tessera(home)
            .env("PATH", path)
            .args(["kernel", "fetch"])
            .output()
            .expect("it can be run"),
    )
}

fn is_left_behind(home: &Path) -> bool {
    let folder = home.join(".local/share/tessera");
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn fetch_without_pip_tells_what_to_install() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let output = tessera(home.path())
        .env("PATH", home.path())
        .args(["kernel", "fetch"])
        .output();
    let sentence = one_sentence(&output.expect("it can be run"));
    assert!(sentence.contains("install python3-pip"), "{sentence}");
    assert!(!is_left_behind(home.path()));
}

#[test]
fn fetch_with_a_failing_pip_passes_its_reason_on() {
    let home = tempfile::tempdir().expect("a temporary folder");
    fake_pip(
        home.path(),
        "pip",
        "echo 'ERROR: No matching distribution found' >&2; exit 1",
    );
    let sentence = fetch(home.path());
    assert_eq!(
        sentence,
        "pip cannot download microsandbox==0.7.11: ERROR: No matching distribution found"
    );
    assert!(!is_left_behind(home.path()));
}

#[test]
fn fetch_asks_pip_for_the_wheel_without_its_dependencies() {
    let home = tempfile::tempdir().expect("a temporary folder");
    fake_pip(home.path(), "pip", "echo \"ERROR: $1 $2 $3 $4 $5\" >&2; exit 1");
    let sentence = fetch(home.path());
    assert!(
        sentence.ends_with("download --no-deps --disable-pip-version-check microsandbox==0.7.11 -d"),
        "{sentence}"
    );
}

#[test]
fn fetch_tries_pip3_when_there_is_no_pip() {
    let home = tempfile::tempdir().expect("a temporary folder");
    fake_pip(home.path(), "pip3", "echo 'ERROR: this is pip3' >&2; exit 1");
    let output = tessera(home.path())
        .env("PATH", home.path())
        .args(["kernel", "fetch"])
        .output();
    assert!(one_sentence(&output.expect("it can be run")).ends_with("ERROR: this is pip3"));
}

#[test]
fn fetch_that_gets_something_else_keeps_nothing() {
    let home = tempfile::tempdir().expect("a temporary folder");
    fake_pip(home.path(), "pip", "echo 'no archive' > \"$D/microsandbox.whl\"");
    let sentence = fetch(home.path());
    assert!(sentence.contains("microsandbox.whl is not a wheel"), "{sentence}");
    assert!(!is_left_behind(home.path()));
}

#[test]
fn fetch_from_a_wheel_that_does_not_exist_names_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let sentence = complaint(home.path(), &["kernel", "fetch", "--wheel", "/nowhere.whl"]);
    assert!(
        sentence.starts_with("the wheel /nowhere.whl cannot be read: "),
        "{sentence}"
    );
}

#[test]
fn fetch_into_a_folder_that_cannot_be_made_names_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    fs::write(home.path().join("file"), "").expect("a temporary folder");
    let data = home.path().join("file/data");
    let output = tessera(home.path())
        .env("XDG_DATA_HOME", &data)
        .args(["kernel", "fetch"])
        .output();
    let sentence = one_sentence(&output.expect("it can be run"));
    assert!(
        sentence.starts_with(&format!("the folder {}/tessera cannot be made: ", data.display())),
        "{sentence}"
    );
}

#[test]
fn info_without_a_kernel_tells_how_to_get_one() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let sentence = complaint(home.path(), &["kernel", "info"]);
    assert_eq!(
        sentence,
        "there is no guest kernel yet: run `tessera kernel fetch`, or give one with --kernel"
    );
}

#[test]
fn info_about_a_file_that_is_no_kernel_names_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let path = home.path().join("notes");
    fs::write(&path, "no kernel").expect("a temporary folder");
    let sentence = complaint(home.path(), &["kernel", "info", "notes"]);
    assert!(sentence.starts_with("notes is not a kernel: "), "{sentence}");
}

#[test]
fn doctor_without_a_kernel_says_so_and_what_to_do() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let output = tessera(home.path()).arg("doctor").output().expect("it can be run");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(OUR_FAILURE));
    assert!(text.contains("BAD   kernel   there is no guest kernel yet"), "{text}");
    assert!(text.contains("-> run `tessera kernel fetch`"), "{text}");
}
