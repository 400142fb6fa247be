//! System calls on bytes in guest memory.
#![allow(
    unsafe_code,
    reason = "sendmsg(2) and recvmsg(2) straight from and to guest memory take raw pointers"
)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::SocketAddrAny;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Parts of memory that one call takes. A 64 KiB packet of Linux has 17 at most.
pub(crate) const MAX_PARTS: usize = 32;

/// Bytes of guest memory for one call, in order.
pub(crate) struct Parts<'a, B> {
    slices: [Option<VolatileSlice<'a, B>>; MAX_PARTS],
    count: usize,
    bytes: usize,
}

impl<'a, B: BitmapSlice> Parts<'a, B> {
    pub(crate) fn new() -> Parts<'a, B> {
        Parts {
            slices: [const { None }; MAX_PARTS],
            count: 0,
            bytes: 0,
        }
    }

    /// False, and nothing taken, when there is no room.
    pub(crate) fn push(&mut self, slice: VolatileSlice<'a, B>) -> bool {
        let Some(place) = self.slices.get_mut(self.count) else {
            return false;
        };
        self.bytes += slice.len();
        *place = Some(slice);
        self.count += 1;
        true
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'a, B>> {
        self.slices.iter().take(self.count).flatten()
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
    let mut iov = [NO_IOV; MAX_PARTS];
    let mut guards = [const { None }; MAX_PARTS];
    for ((slice, iov), guard) in parts.slices().zip(&mut iov).zip(&mut guards) {
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
    msg.msg_iovlen = parts.count as _;
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
    receive_message(fd, parts, None).map(|(len, _)| len)
}

/// Receives one datagram into `parts`.
pub(crate) fn receive_datagram<B: BitmapSlice>(fd: BorrowedFd<'_>, parts: &Parts<'_, B>) -> io::Result<Datagram> {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let (len, msg) = receive_message(fd, parts, Some(&mut name))?;
    let used = msg.msg_namelen as usize;
    let from = (mem::size_of::<libc::sa_family_t>()..=mem::size_of_val(&name))
        .contains(&used)
        .then(|| {
            // SAFETY: the kernel wrote a socket address of this length to `name`, within its bounds.
            unsafe { SocketAddrAny::read((&raw const name).cast(), msg.msg_namelen) }
        });
    Ok(Datagram {
        len,
        truncated: msg.msg_flags & libc::MSG_TRUNC != 0,
        from,
    })
}

fn receive_message<B: BitmapSlice>(
    fd: BorrowedFd<'_>,
    parts: &Parts<'_, B>,
    name: Option<&mut libc::sockaddr_storage>,
) -> io::Result<(usize, libc::msghdr)> {
    let mut iov = [NO_IOV; MAX_PARTS];
    let mut guards = [const { None }; MAX_PARTS];
    for ((slice, iov), guard) in parts.slices().zip(&mut iov).zip(&mut guards) {
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
    msg.msg_iovlen = parts.count as _;
    if let Some(name) = name {
        msg.msg_name = std::ptr::from_mut(name).cast();
        msg.msg_namelen = libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_storage>()).unwrap_or(0);
    }
    // SAFETY: the first `count` entries of `iov` point to memory that `guards` keep accessible for their lengths, and
    // which a guest may see change at any time; `msg_name` is null or a place of `msg_namelen` bytes.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    parts.mark_written(got);
    Ok((got, msg))
}

impl<B: BitmapSlice> Parts<'_, B> {
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
}
