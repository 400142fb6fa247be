//! System calls on bytes in guest memory.
#![allow(
    unsafe_code,
    reason = "send(2), recv(2) and the like straight from and to guest memory take raw pointers"
)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::SocketAddrAny;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;
use vsock_proto::MAX_TURN_PACKETS;

/// Parts of memory that one call takes: one for each receive buffer of a turn. A 64 KiB packet of Linux has 17 at most, and
/// mostly one.
pub(crate) const MAX_PARTS: usize = MAX_TURN_PACKETS as usize;

/// Bytes of guest memory for one call, in order.
pub(crate) struct Parts<'a, B> {
    held: Held<'a, B>,
    bytes: usize,
}

/// Mostly there is one part, which costs no list and, in the kernel, no message.
enum Held<'a, B> {
    One(Option<VolatileSlice<'a, B>>),
    Many {
        slices: [Option<VolatileSlice<'a, B>>; MAX_PARTS],
        count: usize,
    },
}

impl<'a, B: BitmapSlice> Parts<'a, B> {
    #[inline]
    pub(crate) fn new() -> Parts<'a, B> {
        Parts {
            held: Held::One(None),
            bytes: 0,
        }
    }

    /// False, and nothing taken, when there is no room.
    #[inline]
    pub(crate) fn push(&mut self, slice: VolatileSlice<'a, B>) -> bool {
        let len = slice.len();
        match &mut self.held {
            Held::One(place @ None) => *place = Some(slice),
            Held::One(first) => {
                let mut slices = [const { None }; MAX_PARTS];
                let [one, two, ..] = &mut slices;
                (*one, *two) = (first.take(), Some(slice));
                self.held = Held::Many { slices, count: 2 };
            }
            Held::Many { slices, count } => {
                let Some(place) = slices.get_mut(*count) else {
                    return false;
                };
                *place = Some(slice);
                *count += 1;
            }
        }
        self.bytes += len;
        true
    }

    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `bytes` in, as far as they fit. Returns how many did.
    pub(crate) fn fill(&self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        for slice in self.slices() {
            let (now, later) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(now);
            rest = later;
        }
        bytes.len() - rest.len()
    }

    fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'a, B>> {
        let slices = match &self.held {
            Held::One(one) => std::slice::from_ref(one),
            Held::Many { slices, count } => slices.get(..*count).unwrap_or_default(),
        };
        slices.iter().flatten()
    }

    /// The only part, if it is one.
    fn only(&self) -> Option<&VolatileSlice<'a, B>> {
        match &self.held {
            Held::One(one) => one.as_ref(),
            Held::Many { .. } => None,
        }
    }

    fn mark_written(&self, bytes: usize) {
        let mut left = bytes;
        for slice in self.slices() {
            let now = left.min(slice.len());
            slice.bitmap().mark_dirty(0, now);
            left -= now;
        }
    }
}

const NO_IOV: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// Sends what is in `parts`, to `name` if there is one. Never blocks, never raises SIGPIPE.
pub(crate) fn send<B: BitmapSlice>(
    fd: BorrowedFd<'_>,
    parts: &Parts<'_, B>,
    name: Option<&SocketAddrAny>,
) -> io::Result<usize> {
    match parts.only() {
        Some(part) => send_part(fd, part, name),
        None => send_message(fd, parts, name),
    }
}

/// A call that takes one buffer costs the kernel less than one that takes a list.
fn send_part<B: BitmapSlice>(
    fd: BorrowedFd<'_>,
    part: &VolatileSlice<'_, B>,
    name: Option<&SocketAddrAny>,
) -> io::Result<usize> {
    let held = part.ptr_guard();
    let (name, name_len) = name.map_or((std::ptr::null(), 0), |name| (name.as_ptr().cast(), name.addr_len()));
    // SAFETY: `held` keeps the part accessible for its length, which sendto only reads, as it does the name of
    // `name_len` bytes, which outlives the call. Another writer in the guest changes what is sent, nothing else.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            held.as_ptr().cast(),
            part.len(),
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            name,
            name_len,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn send_message<B: BitmapSlice>(
    fd: BorrowedFd<'_>,
    parts: &Parts<'_, B>,
    name: Option<&SocketAddrAny>,
) -> io::Result<usize> {
    let mut iov = [NO_IOV; MAX_PARTS];
    let mut guards = [const { None }; MAX_PARTS];
    let mut count = 0;
    for ((slice, iov), guard) in parts.slices().zip(&mut iov).zip(&mut guards) {
        count += 1;
        let held = slice.ptr_guard();
        *iov = libc::iovec {
            iov_base: held.as_ptr().cast_mut().cast(),
            iov_len: slice.len(),
        };
        *guard = Some(held);
    }
    // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = count;
    if let Some(name) = name {
        msg.msg_name = name.as_ptr().cast_mut().cast();
        msg.msg_namelen = name.addr_len();
    }
    // SAFETY: the first `count` entries of `iov` point to memory that `guards` keep accessible for their lengths;
    // sendmsg only reads it and the name, which outlives the call. Another writer in the guest changes what is sent,
    // nothing else.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const msg, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What one datagram was.
pub(crate) struct Datagram {
    pub(crate) len: usize,
    pub(crate) truncated: bool,
    pub(crate) from: Option<SocketAddrAny>,
}

/// Receives into `parts`, as much of a stream as there is, without blocking. 0 bytes into a non-empty buffer is the end.
pub(crate) fn receive<B: BitmapSlice>(fd: BorrowedFd<'_>, parts: &Parts<'_, B>) -> io::Result<usize> {
    match parts.only() {
        Some(part) => receive_part(fd, part, 0, None),
        None => receive_message(fd, parts, None).map(|(len, _)| len),
    }
}

/// Receives one datagram into `parts`.
pub(crate) fn receive_datagram<B: BitmapSlice>(fd: BorrowedFd<'_>, parts: &Parts<'_, B>) -> io::Result<Datagram> {
    let mut name = Name::new();
    let (len, truncated) = match parts.only() {
        Some(part) => {
            // With this flag the kernel tells the whole length, however much of it there was room for.
            let whole = receive_part(fd, part, libc::MSG_TRUNC, Some(&mut name))?;
            (whole.min(part.len()), whole > part.len())
        }
        None => {
            let (len, flags) = receive_message(fd, parts, Some(&mut name))?;
            (len, flags & libc::MSG_TRUNC != 0)
        }
    };
    Ok(Datagram {
        len,
        truncated,
        from: name.get(),
    })
}

/// A place for the name of who sent something.
struct Name {
    place: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Name {
    #[expect(clippy::cast_possible_truncation, reason = "128 bytes")]
    const ROOM: libc::socklen_t = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;

    fn new() -> Name {
        Name {
            // SAFETY: all-zero bytes are a valid sockaddr_storage.
            place: unsafe { mem::zeroed() },
            len: Self::ROOM,
        }
    }

    /// What the kernel wrote, unless it named nobody.
    fn get(&self) -> Option<SocketAddrAny> {
        (mem::size_of::<libc::sa_family_t>()..=mem::size_of_val(&self.place))
            .contains(&(self.len as usize))
            .then(|| {
                // SAFETY: `len` bytes of `place` are within its bounds, and the kernel wrote a socket address of that
                // length there: nobody else makes a `Name`, and each is given to one call that sets both.
                unsafe { SocketAddrAny::read((&raw const self.place).cast(), self.len) }
            })
    }
}

/// Returns how many bytes came; with MSG_TRUNC, how many there were.
fn receive_part<B: BitmapSlice>(
    fd: BorrowedFd<'_>,
    part: &VolatileSlice<'_, B>,
    flags: libc::c_int,
    name: Option<&mut Name>,
) -> io::Result<usize> {
    let held = part.ptr_guard_mut();
    let (name, name_len) = name.map_or((std::ptr::null_mut(), std::ptr::null_mut()), |name| {
        (&raw mut name.place, &raw mut name.len)
    });
    // SAFETY: `held` keeps the part accessible for its length; a guest may see it change at any time. `name` and
    // `name_len` are both null or a place and the number of bytes there, both of which outlive the call.
    let got = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            held.as_ptr().cast(),
            part.len(),
            flags | libc::MSG_DONTWAIT,
            name.cast(),
            name_len,
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    part.bitmap().mark_dirty(0, got.min(part.len()));
    Ok(got)
}

/// Returns how many bytes came, and the flags of the message.
fn receive_message<B: BitmapSlice>(
    fd: BorrowedFd<'_>,
    parts: &Parts<'_, B>,
    mut name: Option<&mut Name>,
) -> io::Result<(usize, libc::c_int)> {
    let mut iov = [NO_IOV; MAX_PARTS];
    let mut guards = [const { None }; MAX_PARTS];
    let mut count = 0;
    for ((slice, iov), guard) in parts.slices().zip(&mut iov).zip(&mut guards) {
        count += 1;
        let held = slice.ptr_guard_mut();
        *iov = libc::iovec {
            iov_base: held.as_ptr().cast(),
            iov_len: slice.len(),
        };
        *guard = Some(held);
    }
    // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = count;
    if let Some(name) = &mut name {
        msg.msg_name = (&raw mut name.place).cast();
        msg.msg_namelen = Name::ROOM;
    }
    // SAFETY: the first `count` entries of `iov` point to memory that `guards` keep accessible for their lengths, and
    // which a guest may see change at any time; `msg_name` is null or a place of `msg_namelen` bytes.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    parts.mark_written(got);
    if let Some(name) = name {
        name.len = msg.msg_namelen;
    }
    Ok((got, msg.msg_flags))
}
