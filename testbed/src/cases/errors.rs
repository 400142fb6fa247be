//! What must fail before anything is started: one clear sentence, and a status that is not 0.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::{Case, SHORT, cases};
use crate::bed::{Bed, Outcome};

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT;
        root_that_does_not_exist_is_refused,
        root_that_is_a_file_is_refused,
        kernel_that_does_not_exist_is_refused,
        kernel_that_is_no_kernel_is_refused,
        memory_too_small_is_refused,
        processors_out_of_range_are_refused,
        environment_that_cannot_be_carried_is_refused,
        share_that_does_not_exist_is_refused,
        kvm_without_permission_is_refused,
        kvm_that_is_not_there_is_refused,
    ]
}

/// One sentence for a person: no trace, no list of causes over many lines.
fn one_sentence(outcome: &Outcome) -> Result<()> {
    let lines = outcome.stderr.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(lines == 1, "the message has {lines} lines");
    ensure!(outcome.stdout.is_empty(), "something was written to standard output");
    Ok(())
}

fn root_that_does_not_exist_is_refused(bed: &Bed) -> Result<()> {
    one_sentence(
        bed.guest(&["true"])
            .root("/no/such/folder")
            .run()?
            .expect_error(&["/no/such/folder"])?,
    )
}

fn root_that_is_a_file_is_refused(bed: &Bed) -> Result<()> {
    let file = bed.root.join("etc/passwd");
    one_sentence(bed.guest(&["true"]).root(&file).run()?.expect_error(&["etc/passwd"])?)
}

fn kernel_that_does_not_exist_is_refused(bed: &Bed) -> Result<()> {
    one_sentence(
        bed.guest(&["true"])
            .kernel("/no/such/kernel")
            .run()?
            .expect_error(&["/no/such/kernel"])?,
    )
}

fn kernel_that_is_no_kernel_is_refused(bed: &Bed) -> Result<()> {
    let file = bed.root.join("etc/passwd");
    one_sentence(
        bed.guest(&["true"])
            .kernel(&file)
            .run()?
            .expect_error(&["etc/passwd"])?,
    )
}

fn memory_too_small_is_refused(bed: &Bed) -> Result<()> {
    one_sentence(
        bed.guest(&["true"])
            .with(["-m", "16"])
            .run()?
            .expect_error(&["16", "64"])?,
    )
}

fn processors_out_of_range_are_refused(bed: &Bed) -> Result<()> {
    bed.guest(&["true"]).with(["-c", "65"]).run()?.expect_error(&["65"])?;
    bed.guest(&["true"]).with(["-c", "0"]).run()?.expect_error(&["0"])?;
    Ok(())
}

fn environment_that_cannot_be_carried_is_refused(bed: &Bed) -> Result<()> {
    bed.guest(&["true"])
        .with(["-e", "=value"])
        .run()?
        .expect_error(&["=value"])?;
    let not_utf8 = OsStr::from_bytes(b"NAME=\xff\xfe");
    bed.guest(&["true"])
        .with([OsStr::new("-e"), not_utf8])
        .run()?
        .expect_error(&["UTF-8"])?;
    Ok(())
}

fn share_that_does_not_exist_is_refused(bed: &Bed) -> Result<()> {
    one_sentence(
        bed.guest(&["true"])
            .with(["-v", "/no/such/share:/data"])
            .run()?
            .expect_error(&["/no/such/share"])?,
    )
}

const NOBODY: u32 = 65534;

fn kvm_without_permission_is_refused(bed: &Bed) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become a user that may not open /dev/kvm");
        return Ok(());
    }
    one_sentence(bed.guest(&["true"]).user(NOBODY).run()?.expect_error(&["/dev/kvm"])?)
}

fn kvm_that_is_not_there_is_refused(bed: &Bed) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can hide /dev/kvm from a program");
        return Ok(());
    }
    let hide = "mount -t tmpfs none /dev && exec \"$0\" run --kernel \"$1\" \"$2\" -- true";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", hide])
        .arg(&bed.tessera)
        .arg(&bed.kernel)
        .arg(&bed.root);
    let output = command.stdin(Stdio::null()).output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    println!("{}\n{message}", output.status);
    ensure!(!output.status.success(), "it succeeded");
    ensure!(
        message.contains("/dev/kvm") && message.lines().count() == 1,
        "the message is {message:?}"
    );
    Ok(())
}
