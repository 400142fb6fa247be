//! What the program itself says: results on standard output, everything else on standard error.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;

/// How much of the machine's own log is shown: `TESSERA_LOG=debug`; warnings without it.
const LOG_VARIABLE: &str = "TESSERA_LOG";

/// Sends the log of the machine to standard error.
pub(crate) fn log_to_stderr() {
    let wanted = std::env::var(LOG_VARIABLE).ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(wanted.unwrap_or(LevelFilter::WARN))
        .with_writer(io::stderr)
        .init();
}

/// Says what failed, as one sentence.
pub(crate) fn complain(sentence: &str) {
    // When standard error is gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "tessera: {sentence}");
}

/// Says what is odd but does not end the program.
pub(crate) fn warn(sentence: &str) {
    complain(&format!("warning: {sentence}"));
}

/// Prints a result. A reader that has seen enough (`tessera plan | head`) is no failure.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
