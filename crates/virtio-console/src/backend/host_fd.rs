//! A descriptor of the host that is read and written without waiting.
//!
//! The standard streams of a process are shared with its parent, often a shell: O_NONBLOCK set on them stays after us
//! and breaks others. So it is never set on what we are given. What we do instead depends on what it is:
//!
//! | descriptor | how |
//! |---|---|
//! | socket | `MSG_DONTWAIT` on each call |
//! | FIFO open one way, terminal | a description of our own through `/proc/self/fd`, with O_NONBLOCK |
//! | where that fails, other devices | `RWF_NOWAIT` on each call (pipes without a name since Linux 6.4) |
//! | where that is refused too (FIFOs with a name, terminals) | `poll` before each call, and small writes |
//! | regular file, block device | never blocks for long; cannot be waited for either |

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{RecvFlags, SendFlags};

/// A descriptor of the host that is read and written without waiting, though O_NONBLOCK is never set on it: others may share it.
///
/// A socket has `MSG_DONTWAIT` on each call; a FIFO that is open one way and a terminal are opened anew through
/// `/proc/self/fd`. Where that fails, and with other devices, each call has `RWF_NOWAIT`. Where the host's kernel refuses that,
/// as for a FIFO with a name or a terminal, `poll` comes before each call, and another process that takes what was promised can
/// make it wait. Regular files and block devices take what they are given.
#[derive(Debug)]
pub struct HostFd {
    fd: OwnedFd,
    method: Method,
    /// The kernel has refused RWF_NOWAIT ([`Method::NoWait`]).
    polls: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Socket,
    OwnDescription,
    NoWait,
    AlwaysReady,
}

/// A pipe that `poll` says is writable takes this much (PIPE_BUF, pipe(7)).
const PIECE_AFTER_POLL: usize = 4096;

/// At the position that the descriptor shares, or without one (preadv2(2)).
const NO_OFFSET: u64 = u64::MAX;

impl HostFd {
    /// Looks at what the descriptor is.
    pub fn new(fd: OwnedFd) -> Self {
        let Ok(stat) = rustix::fs::fstat(&fd) else {
            return Self::with_method(fd, Method::NoWait);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => Self::with_method(fd, Method::Socket),
            FileType::RegularFile | FileType::BlockDevice | FileType::Directory => {
                Self::with_method(fd, Method::AlwaysReady)
            }
            FileType::Fifo => Self::reopened(fd),
            FileType::CharacterDevice if is_terminal_with_a_name(&fd, stat.st_rdev) => Self::reopened(fd),
            _ => Self::with_method(fd, Method::NoWait),
        }
    }

    fn reopened(fd: OwnedFd) -> Self {
        match open_again(&fd) {
            Some(own) => Self::with_method(own, Method::OwnDescription),
            None => Self::with_method(fd, Method::NoWait),
        }
    }

    fn with_method(fd: OwnedFd, method: Method) -> Self {
        Self {
            fd,
            method,
            polls: AtomicBool::new(false),
        }
    }

    /// How much to offer to [`write`](Self::write) in one call at most.
    pub(crate) fn piece_len(&self) -> usize {
        match self.method {
            Method::NoWait => PIECE_AFTER_POLL,
            Method::Socket | Method::OwnDescription | Method::AlwaysReady => usize::MAX,
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there yet, or what the host says.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.method {
            Method::Socket => Ok(rustix::net::recv(&self.fd, buf, RecvFlags::DONTWAIT)?.0),
            Method::OwnDescription | Method::AlwaysReady => Ok(rustix::io::read(&self.fd, buf)?),
            Method::NoWait => self.read_without_waiting(buf),
        }
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none yet, or what the host says.
    pub fn write(&self, buf: &[u8]) -> io::Result<usize> {
        match self.method {
            Method::Socket => Ok(rustix::net::send(
                &self.fd,
                buf,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            )?),
            Method::OwnDescription | Method::AlwaysReady => Ok(rustix::io::write(&self.fd, buf)?),
            Method::NoWait => self.write_without_waiting(buf),
        }
    }

    fn read_without_waiting(&self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.unless_refused(|| {
            let mut whole = [IoSliceMut::new(buf)];
            rustix::io::preadv2(&self.fd, &mut whole, NO_OFFSET, ReadWriteFlags::NOWAIT)
        });
        if let Some(read) = read {
            return read;
        }
        self.require(PollFlags::IN)?;
        Ok(rustix::io::read(&self.fd, buf)?)
    }

    fn write_without_waiting(&self, buf: &[u8]) -> io::Result<usize> {
        let whole = [IoSlice::new(buf)];
        let written = self.unless_refused(|| rustix::io::pwritev2(&self.fd, &whole, NO_OFFSET, ReadWriteFlags::NOWAIT));
        if let Some(written) = written {
            return written;
        }
        self.require(PollFlags::OUT)?;
        let piece = buf.get(..PIECE_AFTER_POLL).unwrap_or(buf);
        Ok(rustix::io::write(&self.fd, piece)?)
    }

    /// `None` where the kernel has no RWF_NOWAIT for this descriptor, and what remains is `poll`. That does not change, so it
    /// is asked once.
    fn unless_refused(&self, call: impl FnOnce() -> rustix::io::Result<usize>) -> Option<io::Result<usize>> {
        if self.polls.load(Ordering::Relaxed) {
            return None;
        }
        match call() {
            Err(Errno::OPNOTSUPP) => {
                self.polls.store(true, Ordering::Relaxed);
                None
            }
            done => Some(done.map_err(io::Error::from)),
        }
    }

    /// Errors and hang-ups pass: the call that follows tells what they are.
    fn require(&self, wanted: PollFlags) -> io::Result<()> {
        let mut poll = [PollFd::new(&self.fd, wanted)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut poll, Some(&now))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

impl AsFd for HostFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opening a pseudoterminal's master again makes a new terminal, not a second description of this one.
fn is_terminal_with_a_name(fd: &OwnedFd, device: u64) -> bool {
    const PTMX: (u32, u32) = (5, 2);
    rustix::termios::isatty(fd) && (rustix::fs::major(device), rustix::fs::minor(device)) != PTMX
}

/// None where there is no `/proc`, no permission, no reader of the FIFO. A FIFO that is open both ways may be so to
/// keep its other end from closing, which a description with one way would not.
fn open_again(fd: &OwnedFd) -> Option<OwnedFd> {
    let mode = rustix::fs::fcntl_getfl(fd).ok()? & OFlags::RWMODE;
    let is_fifo = rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if mode == OFlags::RDWR && is_fifo {
        return None;
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(
        path,
        mode | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::thread;
    use std::time::{Duration, Instant};

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe().unwrap()
    }

    fn pty() -> (OwnedFd, OwnedFd) {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        (master, slave)
    }

    fn is_nonblocking(fd: impl AsFd) -> bool {
        rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
    }

    fn fill(output: &HostFd) {
        while output.write(&[b'x'; 1024]).is_ok() {}
    }

    /// A pipe of another user, which this process may not open again.
    fn of_another_user(fd: OwnedFd) -> HostFd {
        HostFd::with_method(fd, Method::NoWait)
    }

    /// Counts its calls until the pipe has no reader any more.
    fn write_on(output: HostFd, piece: &'static [u8]) -> Arc<AtomicU32> {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        thread::spawn(move || {
            while !matches!(output.write(piece), Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
                counted.fetch_add(1, Ordering::AcqRel);
            }
        });
        calls
    }

    fn goes_on(calls: &AtomicU32) -> bool {
        let (before, patience) = (calls.load(Ordering::Acquire), Instant::now() + Duration::from_secs(2));
        while calls.load(Ordering::Acquire) == before && Instant::now() < patience {
            thread::yield_now();
        }
        calls.load(Ordering::Acquire) != before
    }

    /// Each page that is read is room that both want, and nobody reads until both have said that they do not wait for it.
    #[test]
    fn writers_that_share_a_pipe_of_another_user_do_not_wait_for_a_reader() {
        let (read, write) = pipe();
        let mut reader = File::from(read);
        let full = of_another_user(write.try_clone().unwrap());
        fill(&full);
        if full.polls.load(Ordering::Acquire) {
            eprintln!("skipped: this kernel has no RWF_NOWAIT for pipes");
            return;
        }
        let byte = write_on(of_another_user(write.try_clone().unwrap()), b"x");
        let page = write_on(of_another_user(write), &[b'y'; PIECE_AFTER_POLL]);

        for round in 0..100 {
            reader.read_exact(&mut [0; PIECE_AFTER_POLL]).unwrap();
            assert!(goes_on(&byte) && goes_on(&page), "round {round}");
        }
    }

    #[test]
    fn empty_pipe_and_full_pipe_would_block_and_stay_as_they_were_for_others() {
        let (read, write) = pipe();
        let (shell_read, shell_write) = (read.try_clone().unwrap(), write.try_clone().unwrap());
        let (input, output) = (HostFd::new(read), HostFd::new(write));

        assert_eq!(input.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fill(&output);
        assert_eq!(output.write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);

        assert!(!is_nonblocking(&shell_read) && !is_nonblocking(&shell_write));
    }

    #[test]
    fn terminal_without_input_would_block_and_stays_as_it_was_for_others() {
        let (_master, slave) = pty();
        let shell = slave.try_clone().unwrap();
        let input = HostFd::new(slave);

        assert_eq!(input.method, Method::OwnDescription);
        assert_eq!(input.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!is_nonblocking(&shell));
    }

    #[test]
    fn master_of_a_terminal_is_not_opened_again() {
        let (master, slave) = pty();
        let master = HostFd::new(master);

        assert_eq!(master.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        File::from(slave).write_all(b"hi").unwrap();

        let mut buf = [0; 8];
        assert_eq!(master.read(&mut buf).unwrap(), 2);
        assert_eq!(&buf[..2], b"hi");
    }

    #[test]
    fn socket_would_block_without_being_nonblocking() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let socket = HostFd::new(ours.into());

        assert_eq!(socket.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fill(&socket);
        assert_eq!(socket.write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!is_nonblocking(&socket));
        theirs.write_all(b"hi").unwrap();
        assert_eq!(socket.read(&mut [0; 8]).unwrap(), 2);
    }

    #[test]
    fn regular_file_is_written_at_the_position_it_shares() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"ab").unwrap();
        let output = HostFd::new(file.try_clone().unwrap().into());

        assert_eq!(output.write(b"cd").unwrap(), 2);

        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcd");
    }

    #[test]
    fn pipe_whose_reader_is_gone_is_broken() {
        let (read, write) = pipe();
        drop(read);
        assert_eq!(
            HostFd::new(write).write(b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn pipe_whose_writer_is_gone_ends() {
        let (read, write) = pipe();
        drop(write);
        assert_eq!(HostFd::new(read).read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn fifo_open_both_ways_keeps_its_description() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let both = rustix::fs::open(&path, OFlags::RDWR, Mode::empty()).unwrap();
        let both = HostFd::new(both);

        assert_eq!(both.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fill(&both);
        assert_eq!(both.write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
