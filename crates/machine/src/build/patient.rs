//! A writer for a vCPU's thread, which must not wait for a reader that may never come.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long one byte waits for room, and how much is written at a time: so much fits into a pipe that polls writable.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const PIECE: usize = 4096;

/// Writes to a descriptor that others may share, so O_NONBLOCK is not set on it; asks for room instead. A reader that lets
/// it wait once is not waited for again until it reads.
pub(super) struct PatientWriter {
    file: File,
    stalled: bool,
}

impl PatientWriter {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            file: fd.into(),
            stalled: false,
        }
    }

    fn has_room(&self) -> io::Result<bool> {
        let patience = if self.stalled { Timespec::default() } else { PATIENCE };
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        Ok(poll(&mut fds, Some(&patience))? > 0)
    }
}

impl Write for PatientWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stalled = !self.has_room()?;
        if self.stalled {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.file.write(&bytes[..bytes.len().min(PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

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
}
