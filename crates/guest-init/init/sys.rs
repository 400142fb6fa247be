//! System calls that `std` does not offer.
#![allow(
    unsafe_code,
    reason = "mount, reboot and the like have no safe form in std, and the init is built on std alone"
)]

use std::ffi::{CString, c_char, c_int, c_short, c_uint, c_ulong, c_void};
use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::config::Rlimit;
use crate::program::Pid;

pub(crate) const MS_RDONLY: u64 = 1;
pub(crate) const MS_NOSUID: u64 = 2;
pub(crate) const MS_NODEV: u64 = 4;
pub(crate) const MS_NOEXEC: u64 = 8;
pub(crate) const MS_BIND: u64 = 1 << 12;
pub(crate) const MS_REC: u64 = 1 << 14;
pub(crate) const MS_SHARED: u64 = 1 << 20;
pub(crate) const MS_RELATIME: u64 = 1 << 21;

/// `sigset_t` of glibc and of musl: a bit for each of 1024 signals, the first for signal 1.
#[repr(C)]
struct SignalSet([u64; 16]);

#[repr(C)]
struct PollDescriptor {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

#[repr(C)]
struct ResourceLimit {
    soft: u64,
    hard: u64,
}

unsafe extern "C" {
    #[link_name = "mount"]
    fn mount_at(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    #[link_name = "umount2"]
    fn unmount_at(target: *const c_char, flags: c_int) -> c_int;
    fn statfs(path: *const c_char, buffer: *mut c_void) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    #[link_name = "reboot"]
    fn reboot_by(command: c_int) -> c_int;
    #[link_name = "sync"]
    fn sync_all();
    fn sethostname(name: *const c_char, len: usize) -> c_int;
    fn setsid() -> c_int;
    fn prlimit(pid: c_int, resource: c_uint, new: *const ResourceLimit, old: *mut ResourceLimit) -> c_int;
    #[link_name = "kill"]
    fn send_signal(pid: c_int, signal: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn signalfd(fd: c_int, mask: *const SignalSet, flags: c_int) -> c_int;
    fn poll(descriptors: *mut PollDescriptor, count: c_ulong, timeout: c_int) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
}

fn result(returned: c_int) -> io::Result<()> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn c_string(text: &[u8]) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

pub(crate) fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let [source, target, kind, data] = [source, target, kind, data].map(|text| c_string(text.as_bytes()));
    let (source, target, kind, data) = (source?, target?, kind?, data?);
    // SAFETY: the four strings end in NUL and outlive the call, which keeps none of them.
    result(unsafe {
        mount_at(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
}

/// Takes the last mount on `target` away, at once for those who look there and for good when nobody uses it.
pub(crate) fn unmount(target: &str) -> io::Result<()> {
    const MNT_DETACH: c_int = 2;
    let target = c_string(target.as_bytes())?;
    // SAFETY: `target` ends in NUL and outlives the call, which does not keep it.
    result(unsafe { unmount_at(target.as_ptr(), MNT_DETACH) })
}

/// What statfs(2) says of FUSE.
pub(crate) const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;

/// `f_type` of `statfs(2)`.
pub(crate) fn file_system_magic(path: &Path) -> io::Result<u64> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // On 64-bit Linux `struct statfs` has 120 bytes and begins with a long `f_type`.
    let mut buffer = [0_u64; 32];
    // SAFETY: `path` ends in NUL; `buffer` is aligned for and larger than the structure that the kernel writes.
    result(unsafe { statfs(path.as_ptr(), buffer.as_mut_ptr().cast()) })?;
    Ok(buffer[0])
}

/// An ioctl whose argument is the value itself.
pub(crate) fn ioctl_with_value(file: &File, command: u32, value: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open; the commands that the init sends this way take no pointer.
    result(unsafe { ioctl(file.as_raw_fd(), c_ulong::from(command), c_ulong::from(value)) })
}

/// Resets the machine. Returns only if the kernel refuses.
pub(crate) fn reboot() -> io::Error {
    const RB_AUTOBOOT: c_int = 0x0123_4567;
    // SAFETY: takes a number only.
    unsafe { reboot_by(RB_AUTOBOOT) };
    io::Error::last_os_error()
}

pub(crate) fn sync() {
    // SAFETY: takes nothing.
    unsafe { sync_all() }
}

pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one slice.
    result(unsafe { sethostname(name.as_ptr().cast(), name.len()) })
}

/// Sends a signal. The target may be gone, which is what most signals are for.
pub(crate) fn kill(pid: Pid, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { send_signal(pid, signal) };
}

/// A child that has ended, with its status, if there is one.
pub(crate) fn reap_one() -> Option<(Pid, i32)> {
    const WNOHANG: c_int = 1;
    let mut status = 0;
    // SAFETY: `status` is written during the call only.
    let pid = unsafe { waitpid(-1, &raw mut status, WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Blocks `signals` and makes a descriptor that they are read from.
pub(crate) fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    const SIG_BLOCK: c_int = 0;
    const SFD_CLOEXEC: c_int = 0o2_000_000;
    const SFD_NONBLOCK: c_int = 0o4_000;
    let set = SignalSet::of(signals);
    // SAFETY: `set` is a whole signal set, read during the call only; no old set is asked for.
    result(unsafe { sigprocmask(SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: as above; -1 asks for a new descriptor.
    owned(unsafe { signalfd(-1, &raw const set, SFD_CLOEXEC | SFD_NONBLOCK) })
}

impl SignalSet {
    fn of(signals: &[i32]) -> Self {
        let bits = signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1));
        let mut set = [0; 16];
        set[0] = bits;
        Self(set)
    }
}

fn owned(fd: c_int) -> io::Result<OwnedFd> {
    result(fd)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the next pending signal.
pub(crate) fn next_signal(descriptor: &OwnedFd) -> Option<i32> {
    const SIGNAL_INFO_LEN: usize = 128;
    let mut info = [0; SIGNAL_INFO_LEN];
    let mut file = File::from(descriptor.try_clone().ok()?);
    io::Read::read_exact(&mut file, &mut info).ok()?;
    let [a, b, c, d, ..] = info;
    Some(i32::from_ne_bytes([a, b, c, d]))
}

/// Which of two descriptors can be read, or has been closed on the other side.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) first: bool,
    pub(crate) second: bool,
}

/// Waits for one of two descriptors; for ever without a timeout.
pub(crate) fn wait_readable(first: BorrowedFd<'_>, second: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Ready {
    const POLLIN: c_short = 1;
    let milliseconds = timeout.map_or(-1, |time| {
        c_int::try_from(time.as_millis())
            .unwrap_or(c_int::MAX - 1)
            .saturating_add(c_int::from(!time.is_zero()))
    });
    // The kernel skips negative descriptors.
    let second = second.map_or(-1, |fd| fd.as_raw_fd());
    let mut descriptors = [first.as_raw_fd(), second].map(|fd| PollDescriptor {
        fd,
        events: POLLIN,
        revents: 0,
    });
    // SAFETY: the pointer and the count are those of one array, written during the call only.
    if unsafe { poll(descriptors.as_mut_ptr(), 2, milliseconds) } <= 0 {
        return Ready::default();
    }
    let [first, second] = descriptors.map(|descriptor| descriptor.revents != 0);
    Ready { first, second }
}

/// Sends one rtnetlink request that asks for an acknowledgement, and waits for that.
pub(crate) fn netlink_request(message: &[u8]) -> io::Result<()> {
    const AF_NETLINK: c_int = 16;
    const SOCK_RAW: c_int = 3;
    const SOCK_CLOEXEC: c_int = 0o2_000_000;
    const NETLINK_ROUTE: c_int = 0;
    const NLMSG_ERROR: u16 = 2;
    // SAFETY: takes numbers only.
    let mut socket = File::from(owned(unsafe {
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
    })?);
    socket.write_all(message)?;
    let mut reply = [0; 512];
    let len = io::Read::read(&mut socket, &mut reply)?;
    match reply.get(..len) {
        Some([_, _, _, _, k0, k1, _, _, _, _, _, _, _, _, _, _, e0, e1, e2, e3, ..])
            if u16::from_ne_bytes([*k0, *k1]) == NLMSG_ERROR =>
        {
            match i32::from_ne_bytes([*e0, *e1, *e2, *e3]) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
            }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What is done in the child between fork and exec.
pub(crate) struct ChildSetUp {
    pub(crate) terminal: Option<File>,
    pub(crate) rlimits: Vec<Rlimit>,
    /// Gets one byte, [`SetUpStep::to_byte`], if a step fails. `Command::spawn` reports the error, not its place.
    pub(crate) trouble: PipeWriter,
}

/// A step of [`ChildSetUp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetUpStep {
    Session,
    Terminal,
    /// The limit with this index.
    Rlimit(u8),
}

impl SetUpStep {
    fn to_byte(self) -> u8 {
        match self {
            Self::Session => 0,
            Self::Terminal => 1,
            Self::Rlimit(index) => index.saturating_add(2),
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Session,
            1 => Self::Terminal,
            index => Self::Rlimit(index - 2),
        }
    }
}

/// Has `command` do the steps in its child.
pub(crate) fn set_up_child(command: &mut Command, mut set_up: ChildSetUp) {
    let steps = move || {
        do_steps(&set_up).map_err(|(step, error)| {
            let _ = set_up.trouble.write_all(&[step.to_byte()]);
            error
        })
    };
    // SAFETY: between fork and exec only async-signal-safe functions may be called: `do_steps` and the closure make
    // system calls and neither allocate nor lock.
    unsafe { command.pre_exec(steps) };
}

fn do_steps(set_up: &ChildSetUp) -> Result<(), (SetUpStep, io::Error)> {
    const SIG_SETMASK: c_int = 2;
    const TIOCSCTTY: c_ulong = 0x540e;
    let nothing = SignalSet::of(&[]);
    // SAFETY: `nothing` is a whole signal set, read during the call only; no old set is asked for.
    result(unsafe { sigprocmask(SIG_SETMASK, &raw const nothing, std::ptr::null_mut()) })
        .map_err(|error| (SetUpStep::Session, error))?;
    // SAFETY: takes nothing.
    result(unsafe { setsid() }).map_err(|error| (SetUpStep::Session, error))?;
    if let Some(terminal) = &set_up.terminal {
        // SAFETY: the descriptor is open, and the argument is a number.
        result(unsafe { ioctl(terminal.as_raw_fd(), TIOCSCTTY, c_ulong::from(0_u8)) })
            .map_err(|error| (SetUpStep::Terminal, error))?;
    }
    for (index, limit) in (0..=u8::MAX).zip(&set_up.rlimits) {
        let new = ResourceLimit {
            soft: limit.soft,
            hard: limit.hard,
        };
        // SAFETY: `new` is a whole structure, read during the call only; no old limit is asked for.
        result(unsafe { prlimit(0, limit.resource, &raw const new, std::ptr::null_mut()) })
            .map_err(|error| (SetUpStep::Rlimit(index), error))?;
    }
    Ok(())
}

/// The status of one child, once it has ended.
#[cfg(test)]
pub(crate) fn wait_for(pid: Pid) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is written during the call only.
    result(unsafe { waitpid(pid, &raw mut status, 0) })?;
    Ok(status)
}
