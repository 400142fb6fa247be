//! How a guest begins and ends.

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::{Case, SHORT, cases};
use crate::bed::Bed;

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT;
        program_that_succeeds_gives_output_and_status_0,
        program_that_exits_42_gives_status_42,
        program_killed_by_a_signal_gives_128_and_its_number,
        program_that_is_missing_is_an_error_that_names_it,
        program_that_is_not_executable_is_an_error_that_names_it,
        guest_panic_is_an_error_of_its_own,
        kernel_that_dies_before_its_drivers_is_a_panic_too,
        poweroff_ends_the_machine,
        poweroff_forced_ends_the_machine,
        reboot_ends_the_machine,
        reboot_forced_ends_the_machine,
        program_that_leaves_children_behind_ends_the_machine,
        orphans_are_reaped,
        sigterm_reaches_the_program,
        sigint_reaches_the_program,
        timeout_ends_a_guest_that_does_not,
        environment_and_folder_are_as_asked,
        name_is_the_host_name,
        arguments_arrive_as_they_are,
    ]
}

fn program_that_succeeds_gives_output_and_status_0(bed: &Bed) -> Result<()> {
    let outcome = bed.shell("echo hello; echo there").run()?;
    outcome.expect_code(0)?.expect_text("hello\nthere\n")?;
    Ok(())
}

fn program_that_exits_42_gives_status_42(bed: &Bed) -> Result<()> {
    bed.shell("echo out; exit 42")
        .run()?
        .expect_code(42)?
        .expect_text("out\n")?;
    Ok(())
}

fn program_killed_by_a_signal_gives_128_and_its_number(bed: &Bed) -> Result<()> {
    bed.shell("kill -KILL $$").run()?.expect_code(128 + 9)?;
    bed.shell("kill -SEGV $$").run()?.expect_code(128 + 11)?;
    Ok(())
}

fn program_that_is_missing_is_an_error_that_names_it(bed: &Bed) -> Result<()> {
    bed.guest(&["/no/such/program"])
        .run()?
        .expect_code(127)?
        .expect_error(&["/no/such/program"])?;
    bed.guest(&["nonesuch"])
        .run()?
        .expect_code(127)?
        .expect_error(&["nonesuch"])?;
    Ok(())
}

fn program_that_is_not_executable_is_an_error_that_names_it(bed: &Bed) -> Result<()> {
    bed.guest(&["/etc/passwd"])
        .run()?
        .expect_code(126)?
        .expect_error(&["/etc/passwd"])?;
    Ok(())
}

/// It has masked no interrupt then, and unmasked none; the status was that of an orderly end.
fn kernel_that_dies_before_its_drivers_is_a_panic_too(bed: &Bed) -> Result<()> {
    let no_drivers = ["--cmdline", "initcall_blacklist=virtio_mmio_init"];
    bed.shell("true").with(no_drivers).run()?.expect_error(&["panic"])?;
    Ok(())
}

fn guest_panic_is_an_error_of_its_own(bed: &Bed) -> Result<()> {
    let outcome = bed.guest(&["true"]).with(["--cmdline", "init=/nope"]).run()?;
    outcome.expect_error(&["panic"])?;
    ensure!(
        ![Some(126), Some(127)].contains(&outcome.code()),
        "a panic has the status of a missing program"
    );
    Ok(())
}

fn ends(bed: &Bed, command: &str) -> Result<()> {
    let outcome = bed
        .shell(&format!("echo before; {command}; sleep 1000; echo after"))
        .run()?;
    ensure!(outcome.code().is_some(), "tessera was killed");
    outcome.expect_text("before\n")?;
    ensure!(!outcome.stderr.contains("panic"), "an orderly end counts as a panic");
    Ok(())
}

fn poweroff_ends_the_machine(bed: &Bed) -> Result<()> {
    ends(bed, "poweroff")
}

fn poweroff_forced_ends_the_machine(bed: &Bed) -> Result<()> {
    ends(bed, "poweroff -f")
}

fn reboot_ends_the_machine(bed: &Bed) -> Result<()> {
    ends(bed, "reboot")
}

fn reboot_forced_ends_the_machine(bed: &Bed) -> Result<()> {
    ends(bed, "reboot -f")
}

fn program_that_leaves_children_behind_ends_the_machine(bed: &Bed) -> Result<()> {
    bed.shell("sleep 1000 & sleep 1000 & exit 5").run()?.expect_code(5)?;
    Ok(())
}

fn orphans_are_reaped(bed: &Bed) -> Result<()> {
    let line =
        "(sleep 0.1 & true & sh -c 'true &' ); sleep 1; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; echo end";
    bed.shell(line).run()?.expect_code(0)?.expect_text("end\n")?;
    Ok(())
}

fn signal_arrives(bed: &Bed, signal: Signal, name: &str) -> Result<()> {
    let line = format!("trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.2; done");
    let mut running = bed.shell(&line).start()?;
    running.wait_for_line("ready")?;
    running.signal(signal)?;
    let (rest, status) = running.finish()?;
    ensure!(rest == format!("got {name}\n"), "the program said {rest:?}");
    ensure!(status.code() == Some(7), "the status is {status}");
    Ok(())
}

fn sigterm_reaches_the_program(bed: &Bed) -> Result<()> {
    signal_arrives(bed, Signal::TERM, "TERM")
}

fn sigint_reaches_the_program(bed: &Bed) -> Result<()> {
    signal_arrives(bed, Signal::INT, "INT")
}

fn timeout_ends_a_guest_that_does_not(bed: &Bed) -> Result<()> {
    let outcome = bed.shell("halt -f").with(["--timeout", "15s"]).run()?;
    outcome.expect_error(&["15"])?;
    Ok(())
}

fn environment_and_folder_are_as_asked(bed: &Bed) -> Result<()> {
    let outcome = bed
        .shell("echo \"$A|$B\"; pwd")
        .with(["-e", "A=one two", "-e", "B='\"$x", "-w", "/usr/bin"])
        .run()?;
    outcome.expect_code(0)?.expect_text("one two|'\"$x\n/usr/bin\n")?;
    Ok(())
}

fn name_is_the_host_name(bed: &Bed) -> Result<()> {
    bed.guest(&["hostname"])
        .with(["--name", "kestrel"])
        .run()?
        .expect_code(0)?
        .expect_text("kestrel\n")?;
    Ok(())
}

fn arguments_arrive_as_they_are(bed: &Bed) -> Result<()> {
    let arguments = ["", "two words", "a\"b'c\\d", "--", "line\nbreak", "größe"];
    let mut program = vec!["printf", "[%s]"];
    program.extend(arguments);
    let wanted: String = arguments.map(|argument| format!("[{argument}]")).concat();
    bed.guest(&program).run()?.expect_code(0)?.expect_text(&wanted)?;
    Ok(())
}
