//! Standard input, output and error; the terminal.

use anyhow::{Result, ensure};

use super::{Case, SHORT, cases};
use crate::bed::Bed;
use crate::blob;
use crate::pseudo_terminal::Terminal;

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT;
        stdin_pipes_through_byte_by_byte,
        stdin_that_is_empty_ends,
        stdout_and_stderr_stay_apart,
        output_just_before_the_end_is_not_lost,
        output_that_nobody_reads_does_not_hold_the_program,
        terminal_has_its_size_and_is_restored,
    ]
}

fn stdin_pipes_through_byte_by_byte(bed: &Bed) -> Result<()> {
    let bytes = blob::bytes(1 << 20);
    let outcome = bed.guest(&["cat"]).input(bytes.clone()).run()?;
    outcome.expect_code(0)?;
    ensure!(
        outcome.stdout == bytes,
        "{} of {} bytes came back, or changed",
        outcome.stdout.len(),
        bytes.len()
    );
    Ok(())
}

fn stdin_that_is_empty_ends(bed: &Bed) -> Result<()> {
    bed.guest(&["wc", "-c"]).run()?.expect_code(0)?.expect_text("0\n")?;
    Ok(())
}

fn stdout_and_stderr_stay_apart(bed: &Bed) -> Result<()> {
    let outcome = bed.shell("echo to-out; echo to-err >&2").run()?;
    outcome.expect_code(0)?.expect_text("to-out\n")?;
    ensure!(
        outcome.stderr.contains("to-err") && !outcome.stderr.contains("to-out"),
        "standard error is wrong"
    );
    Ok(())
}

fn output_just_before_the_end_is_not_lost(bed: &Bed) -> Result<()> {
    let outcome = bed.shell("seq 1 50000; echo last").run()?;
    let wanted: String = (1..=50000)
        .map(|number| format!("{number}\n"))
        .chain(["last\n".to_owned()])
        .collect();
    outcome.expect_code(0)?.expect_text(&wanted)?;
    Ok(())
}

fn output_that_nobody_reads_does_not_hold_the_program(bed: &Bed) -> Result<()> {
    let mut running = bed.shell("echo first; seq 1 50000; exit 6").start()?;
    running.wait_for_line("first")?;
    let status = running.close_output()?;
    // A writer that minds is told so by SIGPIPE or an error; one that does not ends as it would.
    ensure!(status.code().is_some(), "tessera was killed: {status}");
    Ok(())
}

fn terminal_has_its_size_and_is_restored(bed: &Bed) -> Result<()> {
    let terminal = Terminal::open(33, 101)?;
    let before = terminal.settings()?;
    let (shown, status) = terminal.run(bed.shell("stty size; tty; exit 3").command())?;
    ensure!(status.code() == Some(3), "the status is {status}");
    ensure!(shown.contains("33 101"), "the guest's terminal has another size");
    ensure!(
        shown.contains("/dev/hvc0") || shown.contains("/dev/pts/") || shown.contains("/dev/vport"),
        "no terminal in the guest"
    );
    let after = terminal.settings()?;
    ensure!(
        before.local_modes == after.local_modes,
        "echo and line editing are not restored"
    );
    ensure!(before.input_modes == after.input_modes, "input modes are not restored");
    ensure!(
        before.output_modes == after.output_modes,
        "output modes are not restored"
    );
    Ok(())
}
