//! A descriptor of the host that is read and written without waiting.
//!
//! The standard streams of a process are shared with its parent, often a shell: O_NONBLOCK set on them stays after us
//! and breaks others. So it is never set on what we are given. What we do instead depends on what it is:
//!
//! | descriptor | how |
//! |---|---|
//! | socket | `MSG_DONTWAIT` on each call |
//! | FIFO open one way, terminal | a description of our own through `/proc/self/fd`, with O_NONBLOCK |
//! | where that fails, other devices | `poll` before each call, and small writes |
//! | regular file, block device | never blocks for long; cannot be waited for either |

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{RecvFlags, SendFlags};

/// A descriptor of the host that is read and written without waiting, though O_NONBLOCK is never set on it: others may share it.
///
/// A socket has `MSG_DONTWAIT` on each call; a FIFO that is open one way and a terminal are opened anew through
/// `/proc/self/fd`. Where that fails, and with other devices, `poll` comes before each call, and another process that takes
/// what was promised can make it wait. Regular files and block devices take what they are given.
#[derive(Debug)]
pub struct HostFd {
    fd: OwnedFd,
    method: Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Socket,
    OwnDescription,
    PollFirst,
    AlwaysReady,
}

/// A pipe that `poll` says is writable takes this much (PIPE_BUF, pipe(7)).
const PIECE_AFTER_POLL: usize = 4096;

impl HostFd {
    /// Looks at what the descriptor is.
    pub fn new(fd: OwnedFd) -> Self {
        let Ok(stat) = rustix::fs::fstat(&fd) else {
            return Self {
                fd,
                method: Method::PollFirst,
            };
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => Self {
                fd,
                method: Method::Socket,
            },
            FileType::RegularFile | FileType::BlockDevice | FileType::Directory => Self {
                fd,
                method: Method::AlwaysReady,
            },
            FileType::Fifo => Self::reopened(fd),
            FileType::CharacterDevice if is_terminal_with_a_name(&fd, stat.st_rdev) => Self::reopened(fd),
            _ => Self {
                fd,
                method: Method::PollFirst,
            },
        }
    }

    fn reopened(fd: OwnedFd) -> Self {
        match open_again(&fd) {
            Some(own) => Self {
                fd: own,
                method: Method::OwnDescription,
            },
            None => Self {
                fd,
                method: Method::PollFirst,
            },
        }
    }

    /// How much to offer to [`write`](Self::write) in one call at most.
    pub(crate) fn piece_len(&self) -> usize {
        match self.method {
            Method::PollFirst => PIECE_AFTER_POLL,
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
            Method::PollFirst => {
                self.require(PollFlags::IN)?;
                Ok(rustix::io::read(&self.fd, buf)?)
            }
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
            Method::PollFirst => {
                self.require(PollFlags::OUT)?;
                let piece = buf.get(..PIECE_AFTER_POLL).unwrap_or(buf);
                Ok(rustix::io::write(&self.fd, piece)?)
            }
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
        let input = HostFd::new(both);

        assert_eq!(input.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
