//! The program as its users call it, in an environment of the test's own.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

/// What the program ends with when it is itself that failed.
pub(crate) const OUR_FAILURE: i32 = 125;

/// The program with an empty home, so that nothing of the user's is found or touched.
pub(crate) fn tessera(home: &Path) -> Command {
    let mut command = Command::cargo_bin("tessera").expect("the program is built");
    command
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .timeout(std::time::Duration::from_secs(60));
    command
}

/// Runs it and returns what it complained about. That has to be one sentence on one line, with nothing on stdout.
#[track_caller]
pub(crate) fn complaint(home: &Path, args: &[&str]) -> String {
    one_sentence(&tessera(home).args(args).output().expect("it can be run"))
}

#[track_caller]
pub(crate) fn one_sentence(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("sentences are UTF-8");
    assert_eq!(output.status.code(), Some(OUR_FAILURE), "{stderr}");
    assert_eq!(output.stdout, b"", "{stderr}");
    let sentence = stderr
        .strip_prefix("tessera: ")
        .and_then(|rest| rest.strip_suffix('\n'));
    let sentence = sentence.unwrap_or_else(|| panic!("not a sentence of ours: {stderr:?}"));
    assert!(
        !sentence.contains('\n') && !sentence.is_empty(),
        "more than one line: {stderr:?}"
    );
    sentence.to_owned()
}

/// What it prints when it succeeds.
#[track_caller]
pub(crate) fn answer(home: &Path, args: &[&str]) -> String {
    let output = tessera(home).args(args).output().expect("it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"");
    String::from_utf8(output.stdout).expect("answers are UTF-8")
}
