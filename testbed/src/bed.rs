//! Running the program under test, and looking at what it did.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// What the cases work with.
pub(crate) struct Bed {
    /// The program under test.
    pub(crate) tessera: PathBuf,
    /// The guest kernel.
    pub(crate) kernel: PathBuf,
    /// A root folder with busybox and wget, or a Debian.
    pub(crate) root: PathBuf,
}

impl Bed {
    /// A guest that runs a program in the test bed's root folder.
    pub(crate) fn guest<'a>(&'a self, program: &[&str]) -> Guest<'a> {
        Guest {
            bed: self,
            verb: "run",
            kernel: self.kernel.clone(),
            root: self.root.clone(),
            options: Vec::new(),
            program: program.iter().map(Into::into).collect(),
            input: None,
            user: None,
            env: Vec::new(),
        }
    }

    /// A guest that runs a line of shell.
    pub(crate) fn shell<'a>(&'a self, line: &str) -> Guest<'a> {
        self.guest(&["sh", "-c", line])
    }
}

/// One call of `tessera` to be made.
pub(crate) struct Guest<'a> {
    bed: &'a Bed,
    verb: &'static str,
    kernel: PathBuf,
    root: PathBuf,
    options: Vec<OsString>,
    program: Vec<OsString>,
    input: Option<Vec<u8>>,
    user: Option<u32>,
    env: Vec<(&'static str, &'static str)>,
}

impl Guest<'_> {
    /// Adds options of `tessera run`.
    pub(crate) fn with<S: Into<OsString>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Another kernel.
    pub(crate) fn kernel(mut self, kernel: impl Into<PathBuf>) -> Self {
        self.kernel = kernel.into();
        self
    }

    /// Another root folder.
    pub(crate) fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = root.into();
        self
    }

    /// Bytes for standard input, which then ends; without it, standard input is empty.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs the program under another user's number.
    pub(crate) fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// A variable of the program's own environment.
    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    /// `tessera plan` in place of `tessera run`.
    pub(crate) fn plan_only(mut self) -> Self {
        self.verb = "plan";
        self
    }

    /// The command, with nothing said about its input and output.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.bed.tessera);
        command
            .arg(self.verb)
            .arg("--kernel")
            .arg(&self.kernel)
            .args(&self.options)
            .envs(self.env.iter().copied());
        command.arg(&self.root).arg("--").args(&self.program);
        if let Some(user) = self.user {
            std::os::unix::process::CommandExt::uid(&mut command, user);
        }
        command
    }

    fn told(&self) -> Command {
        let command = self.command();
        println!("$ {command:?}");
        command
    }

    /// Starts it and returns at once, with its standard output to be read line by line.
    pub(crate) fn start(&self) -> Result<Running> {
        let mut command = self.told();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start tessera")?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Running {
            child,
            output: BufReader::new(output),
        })
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let mut command = self.told();
        command.stdin(if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start tessera")?;
        let writer = child.stdin.take().map(|mut pipe| {
            let bytes = self.input.clone().unwrap_or_default();
            // A guest that ends before it has read all is no error here.
            thread::spawn(move || drop(pipe.write_all(&bytes)))
        });
        let output = child.wait_with_output()?;
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        let outcome = Outcome {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        outcome.tell();
        Ok(outcome)
    }
}

/// A `tessera` that runs.
pub(crate) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Waits for a line of standard output.
    pub(crate) fn wait_for_line(&mut self, wanted: &str) -> Result<()> {
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            println!("stdout: {line}");
            if line.trim_end() == wanted {
                return Ok(());
            }
            line.clear();
        }
        bail!("standard output ended without the line {wanted:?}");
    }

    /// Reads no more of its standard output.
    pub(crate) fn close_output(self) -> Result<ExitStatus> {
        let Self { mut child, output } = self;
        drop(output);
        Ok(child.wait()?)
    }

    /// Sends a signal to `tessera`.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        Ok(rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            signal,
        )?)
    }

    /// The rest of its standard output, and how it ended.
    pub(crate) fn finish(mut self) -> Result<(String, ExitStatus)> {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest)?;
        println!("stdout: {rest}");
        Ok((rest, self.child.wait()?))
    }
}

/// What a run of `tessera` came to.
pub(crate) struct Outcome {
    status: ExitStatus,
    /// Standard output, byte by byte.
    pub(crate) stdout: Vec<u8>,
    /// Standard error as text.
    pub(crate) stderr: String,
}

impl Outcome {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The exit status, when no signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks the exit status.
    pub(crate) fn expect_code(&self, code: i32) -> Result<&Self> {
        ensure!(
            self.status.code() == Some(code),
            "wanted the exit code {code}, got {}",
            self.status
        );
        Ok(self)
    }

    /// Checks that it failed, with a message that contains these words, and with nothing on standard output.
    pub(crate) fn expect_error(&self, words: &[&str]) -> Result<&Self> {
        ensure!(
            matches!(self.status.code(), Some(code) if code != 0),
            "wanted a failure, got {}",
            self.status
        );
        for word in words {
            ensure!(self.stderr.contains(word), "the message does not contain {word:?}");
        }
        Ok(self)
    }

    /// Checks standard output as a whole.
    pub(crate) fn expect_text(&self, text: &str) -> Result<&Self> {
        ensure!(
            self.text() == text,
            "wanted the output {:?}, got {:?}",
            shortened(text),
            shortened(&self.text())
        );
        Ok(self)
    }

    fn tell(&self) {
        println!("{}", self.status);
        println!("stdout: {}", shortened(&self.text()));
        println!("stderr: {}", shortened(&self.stderr));
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 6000;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}... ({} bytes)", &text[..cut], text.len()),
        None => text.to_owned(),
    }
}
