//! What a process writes, line by line, with a limit to waiting.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

/// Lines that a thread reads; what is no UTF-8 in them is replaced, and a carriage return at the end is left out.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    /// The lines of a pipe.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    /// The next line, nothing at the end; an error when it takes too long.
    pub(crate) fn next_within(&self, limit: Duration) -> Result<Option<String>> {
        match self.0.recv_timeout(limit) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("nothing was said for {} s", limit.as_secs()),
        }
    }
}
