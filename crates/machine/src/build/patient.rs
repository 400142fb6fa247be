//! A writer for a vCPU's thread, which must not wait for a reader that may never come.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_console::HostFd;

/// How long one byte waits for room.
const PATIENCE: Duration = Duration::from_millis(100);

/// Writes to a descriptor that others may share: O_NONBLOCK is not set on it, and room that there is may be another's before
/// it is used ([`HostFd`]). A reader that lets it wait once is not waited for again until it reads.
pub(super) struct PatientWriter {
    output: HostFd,
    patience: Duration,
    stalled: bool,
}

impl PatientWriter {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            output: HostFd::new(fd),
            patience: PATIENCE,
            stalled: false,
        }
    }

    fn write_before(&self, deadline: Instant, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = self.output.write(bytes);
            let left = deadline.saturating_duration_since(Instant::now());
            if !would_block(&written) || left.is_zero() {
                return written;
            }
            self.wait_for_room(left)?;
        }
    }

    fn wait_for_room(&self, patience: Duration) -> io::Result<()> {
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut fds = [PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::OUT)];
        poll(&mut fds, Some(&patience))?;
        Ok(())
    }
}

impl Write for PatientWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let patience = if self.stalled { Duration::ZERO } else { self.patience };
        let written = self.write_before(Instant::now() + patience, bytes);
        self.stalled = would_block(&written);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block(written: &io::Result<usize>) -> bool {
    matches!(written, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;

    use super::*;

    const PIECE: usize = 4096;

    #[test]
    fn full_pipe_refuses_bytes_and_takes_them_again_when_read() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut writer = PatientWriter::new(writer);
        while writer.write(&[b'x'; PIECE]).is_ok() {}
        assert_eq!(writer.write(b"y").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut piece = vec![0; PIECE];
        File::from(reader.as_fd().try_clone_to_owned().unwrap())
            .read_exact(&mut piece)
            .unwrap();
        assert_eq!(writer.write(b"y").unwrap(), 1);
    }

    /// Each page that is read is room that both want. Who does not get it must not wait for more of it.
    #[test]
    fn writer_that_shares_its_pipe_with_another_is_not_held_up() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut com1 = PatientWriter {
            patience: Duration::from_micros(100),
            ..PatientWriter::new(writer.try_clone().unwrap().into())
        };
        let console = HostFd::new(writer.into());
        let writes = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_writes, its_stop) = (Arc::clone(&writes), Arc::clone(&stop));
        thread::spawn(move || {
            while !its_stop.load(Ordering::Acquire) {
                let _ = com1.write(b"x");
                its_writes.fetch_add(1, Ordering::AcqRel);
            }
        });
        let stopped = Arc::clone(&stop);
        let console = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let _ = console.write(&[b'y'; PIECE]);
            }
        });
        let is_held_up = (0..500).any(|_| {
            reader.read_exact(&mut [0; PIECE]).unwrap();
            let (before, patience) = (writes.load(Ordering::Acquire), Instant::now() + Duration::from_secs(2));
            while writes.load(Ordering::Acquire) < before + 3 && Instant::now() < patience {
                thread::yield_now();
            }
            writes.load(Ordering::Acquire) == before
        });
        stop.store(true, Ordering::Release);
        console.join().unwrap();
        assert!(!is_held_up);
    }
}
