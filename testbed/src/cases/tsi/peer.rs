//! The host's side of the network checks: it does what a line of text asks for.
//!
//! A check in the guest connects, by TCP, by an AF_UNIX socket or by a vsock route, sends one line, and from there on the
//! connection is what the line made of it. So a check is one function in the guest that says what both sides do.
//!
//! | line | what the host does then |
//! |---|---|
//! | `echo` | sends back what comes, ends when the guest does |
//! | `sink KEY` | reads to the end, notes count and hash as KEY, answers with them |
//! | `stall KEY` | the same, but does not begin before somebody asks for `go KEY` |
//! | `slow KEY` | the same, with a pause after each 64 KiB |
//! | `send COUNT PIECE` | says the hash of COUNT bytes, sends them in writes of PIECE, closes at once |
//! | `bye KEY` | says `bye`, ends its direction, reads to the end, notes that as KEY |
//! | `flood` | sends until it cannot |
//! | `reset` | answers, then resets the connection |
//! | `name` | answers with the address that the connection came from |
//! | `note KEY` | answers with what was noted as KEY, waiting for it |
//! | `dial ADDRESS ...` | connects to the guest: see [`super::dial`] |
//! | `descriptors`, `ticks` | answers with the open files of `tessera`, a line each, or with its vsock thread's processor time |

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt;
use sha2::{Digest, Sha256};

use super::dial;
use crate::blob;
use crate::stat::Stat;

/// How long a check may wait for the other side before it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const PIECE: usize = 64 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(20);

/// What all connections of one case share.
#[derive(Default)]
pub(super) struct Peer {
    notes: Mutex<HashMap<String, String>>,
    noted: Condvar,
    tessera: AtomicU32,
}

/// A connection, of whatever kind.
pub(super) trait Stream: Read + Write + Send + AsFd + 'static {
    /// Sends no more.
    fn end(&self) -> io::Result<()>;
    /// The address of the other side.
    fn from(&self) -> String;
}

impl Stream for TcpStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn from(&self) -> String {
        self.peer_addr().map(|address| address.to_string()).unwrap_or_default()
    }
}

impl Stream for UnixStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn from(&self) -> String {
        "unix".to_owned()
    }
}

impl Peer {
    /// Whose descriptors and threads are asked for.
    pub(super) fn watch(&self, tessera: u32) {
        self.tessera.store(tessera, Ordering::Relaxed);
    }

    /// Serves a TCP listener for as long as the process lives.
    pub(super) fn serve_tcp(self: &Arc<Self>, listener: TcpListener) {
        let peer = Arc::clone(self);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                peer.attend(stream);
            }
        });
    }

    /// Serves a UNIX listener for as long as the process lives.
    pub(super) fn serve_unix(self: &Arc<Self>, listener: UnixListener) {
        let peer = Arc::clone(self);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                peer.attend(stream);
            }
        });
    }

    /// The same, at a path.
    pub(super) fn serve_path(self: &Arc<Self>, path: &Path) -> Result<()> {
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        self.serve_unix(listener);
        Ok(())
    }

    fn attend(self: &Arc<Self>, mut stream: impl Stream) {
        let peer = Arc::clone(self);
        thread::spawn(move || {
            let mut line = String::new();
            let done = read_line(&mut stream).and_then(|wanted| {
                line = wanted;
                peer.obey(stream, &line)
            });
            if let Err(error) = done {
                println!("host, asked for {line:?}: {error:#}");
            }
        });
    }

    fn obey(&self, mut stream: impl Stream, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["echo"] => echo(stream),
            ["sink", key] => self.drain(stream, key, Duration::ZERO),
            ["slow", key] => self.drain(stream, key, SLOW_PAUSE),
            ["stall", key] => {
                self.noted(&format!("go {key}"))?;
                self.drain(stream, key, Duration::ZERO)
            }
            ["go", key] => {
                self.note(&format!("go {key}"), "");
                Ok(())
            }
            ["send", count, piece] => send(stream, count.parse()?, piece.parse()?),
            ["bye", key] => {
                stream.write_all(b"bye\n")?;
                stream.end()?;
                let summary = summary(&mut stream, Duration::ZERO)?;
                self.note(key, &summary);
                Ok(())
            }
            ["flood"] => flood(stream),
            ["reset"] => {
                stream.write_all(b"soon\n")?;
                stream.read_exact(&mut [0])?;
                Ok(sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?)
            }
            ["name"] => Ok(write!(stream, "{}", stream.from())?),
            ["note", key] => Ok(write!(stream, "{}", self.noted(key)?)?),
            ["dial", address, what @ ..] => Ok(stream.write_all(dial::dial(address, what).as_bytes())?),
            ["descriptors"] => Ok(stream.write_all(self.descriptors()?.join("\n").as_bytes())?),
            ["ticks"] => Ok(write!(stream, "{}", self.ticks()?)?),
            _ => bail!("there is no such thing to do"),
        }
    }

    fn drain(&self, mut stream: impl Stream, key: &str, pause: Duration) -> Result<()> {
        let summary = summary(&mut stream, pause)?;
        self.note(key, &summary);
        Ok(stream.write_all(summary.as_bytes())?)
    }

    /// Notes something for whoever asks for it.
    pub(super) fn note(&self, key: &str, value: &str) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.insert(key.to_owned(), value.to_owned());
        }
        self.noted.notify_all();
    }

    fn noted(&self, key: &str) -> Result<String> {
        let notes = self.notes.lock().ok().context("a thread has panicked")?;
        let waited = self
            .noted
            .wait_timeout_while(notes, PATIENCE, |notes| !notes.contains_key(key));
        let (notes, _) = waited.ok().context("a thread has panicked")?;
        notes
            .get(key)
            .cloned()
            .with_context(|| format!("nothing was noted as {key}"))
    }

    /// What each descriptor of `tessera` leads to.
    fn descriptors(&self) -> Result<Vec<String>> {
        let all = fs::read_dir(format!("/proc/{}/fd", self.tessera.load(Ordering::Relaxed)))?;
        let targets = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Ok(targets.map(|target| target.display().to_string()).collect())
    }

    /// Processor time of the thread that carries vsock, in the kernel's ticks of 10 ms.
    fn ticks(&self) -> Result<u64> {
        let tasks = format!("/proc/{}/task", self.tessera.load(Ordering::Relaxed));
        for task in fs::read_dir(tasks)? {
            let thread = Stat::read(&task?.path())?;
            if thread.name == "vsock" {
                return Ok(thread.ticks);
            }
        }
        bail!("tessera has no thread called vsock")
    }
}

/// Reads a line, and nothing that follows it.
fn read_line(stream: &mut impl Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => return Ok(String::from_utf8(line)?),
            [byte] => line.push(byte),
        }
        ensure!(line.len() < 1000, "a request has no end");
    }
}

fn echo(mut stream: impl Stream) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            len => stream.write_all(&piece[..len])?,
        }
    }
}

fn send(mut stream: impl Stream, count: usize, piece: usize) -> Result<()> {
    no_delay(stream.as_fd());
    let bytes = blob::bytes(count);
    writeln!(stream, "{}", blob::sha256(&bytes))?;
    for piece in bytes.chunks(piece) {
        stream.write_all(piece)?;
    }
    Ok(())
}

fn flood(mut stream: impl Stream) -> Result<()> {
    let piece = blob::bytes(PIECE);
    while stream.write_all(&piece).is_ok() {}
    Ok(())
}

/// Small writes are to be small for the device too; a UNIX socket has no such option and needs none.
fn no_delay(socket: BorrowedFd<'_>) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
}

/// How much comes until the end, and its SHA-256.
pub(super) fn summary(stream: &mut impl Read, pause: Duration) -> Result<String> {
    let (mut hash, mut count, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let len = stream
            .read(&mut piece)
            .with_context(|| format!("after {count} bytes"))?;
        if len == 0 {
            let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("{count} {hash}"));
        }
        hash.update(&piece[..len]);
        count += len;
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_read_without_what_follows_it() {
        let mut bytes = b"echo\nrest".as_slice();
        assert_eq!(read_line(&mut bytes).unwrap(), "echo");
        assert_eq!(bytes, b"rest");
        assert!(read_line(&mut bytes).is_err());
    }
}
