//! System calls that rustix does not have, or not over guest memory.

#![allow(
    unsafe_code,
    reason = "guest memory must not become references, and some calls have no safe wrapper"
)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::ReadWriteFlags;
use virtio_ring::Segment;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, MemoryRegionAddress};

use crate::Target;

/// How many parts of guest memory go into one system call. More parts take several calls.
const MAX_PARTS: usize = 256;

pub(crate) fn efault() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

pub(crate) fn einval() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

/// At most `len` bytes of a chain's segments from `offset` on.
pub(crate) struct Span<'a> {
    pub(crate) segments: &'a [Segment],
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// Reads from a file at `offset` into guest memory. Gives how many bytes it were, which can be fewer than asked for.
pub(crate) fn read_into<M: GuestMemoryBackend>(
    file: BorrowedFd<'_>,
    offset: u64,
    mem: &M,
    span: &Span<'_>,
) -> io::Result<usize> {
    with_parts(mem, span, |parts, count| {
        // SAFETY: `parts` are `count` ranges inside guest memory, which stays mapped for the length of this call as
        // `mem` is borrowed; nothing in this process holds a reference into it.
        unsafe { libc::preadv64(file.as_raw_fd(), parts, count, offset.cast_signed()) }
    })
}

/// To `preadv2` and `pwritev2` the file position, which nobody here has to do with.
pub(crate) const NO_OFFSET: u64 = u64::MAX;

/// The same as far as the host has the file's data in memory: EAGAIN where it has to be read from a disk first.
pub(crate) fn read_cached_into<M: GuestMemoryBackend>(
    file: BorrowedFd<'_>,
    offset: u64,
    mem: &M,
    span: &Span<'_>,
) -> io::Result<usize> {
    if offset == NO_OFFSET {
        return Err(einval());
    }
    with_parts(mem, span, |parts, count| {
        // SAFETY: as in `read_into`.
        unsafe { libc::preadv2(file.as_raw_fd(), parts, count, offset.cast_signed(), libc::RWF_NOWAIT) }
    })
}

/// Whether the file system, or the kernel, does not know what it was asked for.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Writes guest memory to a file, with flags of `pwritev2(2)`. Gives how many bytes it were, which can be fewer than asked for.
pub(crate) fn write_from<M: GuestMemoryBackend>(
    file: BorrowedFd<'_>,
    to: Target,
    flags: ReadWriteFlags,
    mem: &M,
    span: &Span<'_>,
) -> io::Result<usize> {
    let (offset, flags) = to.for_host(flags)?;
    let (offset, flags) = (offset.cast_signed(), flags.bits().cast_signed());
    with_parts(mem, span, |parts, count| {
        // SAFETY: as in `read_into`; the kernel only reads, and what the guest changes meanwhile is its own data.
        unsafe {
            match flags {
                0 => libc::pwritev64(file.as_raw_fd(), parts, count, offset),
                flags => libc::pwritev2(file.as_raw_fd(), parts, count, offset, flags),
            }
        }
    })
}

fn with_parts<M: GuestMemoryBackend>(
    mem: &M,
    span: &Span<'_>,
    call: impl FnOnce(*const libc::iovec, libc::c_int) -> libc::ssize_t,
) -> io::Result<usize> {
    let mut list = [MaybeUninit::uninit(); MAX_PARTS];
    let count = gather(mem, span, &mut list).map_err(io::Error::other)?;
    let done = call(list.as_ptr().cast(), libc::c_int::try_from(count).unwrap_or(0));
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Lists where the bytes of `span` are in this process, as far as there is room, and gives how many parts these are.
#[inline]
fn gather<M: GuestMemoryBackend>(
    mem: &M,
    span: &Span<'_>,
    list: &mut [MaybeUninit<libc::iovec>; MAX_PARTS],
) -> Result<usize, GuestMemoryError> {
    let mut free = list.iter_mut();
    let mut window = Window::empty();
    let mut runs = Runs(span.segments.iter());
    let mut run = runs.next_after(span.offset);
    let mut left = span.len;
    while run.len > 0 && left > 0 {
        let Some((start, len)) = window.part(run.at, run.len.min(left)) else {
            window = Window::around(mem, run.at)?;
            continue;
        };
        let Some(part) = free.next() else { break };
        part.write(libc::iovec {
            iov_base: start.cast(),
            iov_len: len,
        });
        left -= len;
        run = run.without(len);
        if run.len == 0 {
            run = runs.next();
        }
    }
    Ok(MAX_PARTS - free.len())
}

/// Segments that follow one another in guest memory, as the pages of a guest often do. They are one part for the kernel,
/// which works for each.
#[derive(Clone, Copy)]
struct Run {
    at: GuestAddress,
    len: usize,
}

impl Run {
    /// What comes after the first `len` bytes. It may be at the other end of the address space if it is nothing.
    #[inline]
    fn without(self, len: usize) -> Self {
        Self {
            at: GuestAddress(self.at.0.wrapping_add(len as u64)),
            len: self.len - len,
        }
    }
}

struct Runs<'a>(std::slice::Iter<'a, Segment>);

impl Runs<'_> {
    /// The first that has something after `skip` bytes, without them. Empty when there is none.
    #[inline]
    fn next_after(&mut self, mut skip: usize) -> Run {
        loop {
            let run = self.next();
            if run.len == 0 || skip < run.len {
                return run.without(skip.min(run.len));
            }
            skip -= run.len;
        }
    }

    /// Empty when there is none: segments never are.
    #[inline]
    fn next(&mut self) -> Run {
        let Some(&(at, len)) = self.0.next() else {
            return Run {
                at: GuestAddress(0),
                len: 0,
            };
        };
        let mut len = len as usize;
        while let Some(&(addr, more)) = self.0.as_slice().first()
            && addr.0 == at.0.wrapping_add(len as u64)
        {
            len = len.saturating_add(more as usize);
            self.0.next();
        }
        Run { at, len }
    }
}

/// The region of guest memory that had the last address: to search for it costs more than what is done there.
struct Window {
    start: u64,
    len: usize,
    /// Where it begins in this process.
    base: *mut u8,
}

impl Window {
    fn empty() -> Self {
        Self {
            start: 0,
            len: 0,
            base: std::ptr::null_mut(),
        }
    }

    /// Where `len` bytes at `addr` begin, and how many of them are here, if the first is. `len` is not 0.
    #[inline]
    fn part(&self, addr: GuestAddress, len: usize) -> Option<(*mut u8, usize)> {
        let offset = usize::try_from(addr.0.wrapping_sub(self.start)).ok()?;
        if offset >= self.len {
            return None;
        }
        Some((self.base.wrapping_add(offset), len.min(self.len - offset)))
    }

    /// The region that has `addr`.
    #[inline]
    fn around<M: GuestMemoryBackend>(mem: &M, addr: GuestAddress) -> Result<Self, GuestMemoryError> {
        let outside = || GuestMemoryError::InvalidGuestAddress(addr);
        let region = mem.find_region(addr).ok_or_else(outside)?;
        let start = region.start_addr().0;
        let len = usize::try_from(region.len()).map_err(|_| outside())?;
        let slice = region.get_slice(MemoryRegionAddress(0), len)?;
        // The guard matters only for memory that is mapped on demand, which no one here uses: `mem` keeps the mapping
        // alive.
        let base = slice.ptr_guard_mut().as_ptr();
        let window = Self { start, len, base };
        // Memory implementations are the monitor's choice: what they say need not fit together.
        if slice.len() == len && window.part(addr, 1).is_some() {
            Ok(window)
        } else {
            Err(GuestMemoryError::PartialBuffer {
                expected: len,
                completed: slice.len(),
            })
        }
    }
}

/// Fills `buf` with directory entries in the form of `getdents64(2)` and gives their length in bytes.
pub(crate) fn getdents(folder: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes to `buf`, which is ours.
    let len = unsafe { libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

/// What `name_to_handle_at(2)` gives: it finds an inode again, whatever its names are by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHandle {
    kind: i32,
    bytes: Box<[u8]>,
}

/// The largest file handle of Linux (MAX_HANDLE_SZ), in bytes.
const MAX_HANDLE: usize = 128;

#[repr(C)]
struct RawHandle {
    head: libc::file_handle,
    bytes: [u8; MAX_HANDLE],
}

impl RawHandle {
    fn new(kind: i32, len: usize) -> Self {
        let handle_bytes = u32::try_from(len.min(MAX_HANDLE)).unwrap_or(0);
        let head = libc::file_handle {
            handle_bytes,
            handle_type: kind,
            f_handle: [],
        };
        Self {
            head,
            bytes: [0; MAX_HANDLE],
        }
    }
}

/// The handle of what `fd` stands for.
pub(crate) fn file_handle(fd: BorrowedFd<'_>) -> io::Result<FileHandle> {
    let mut raw = RawHandle::new(0, MAX_HANDLE);
    let mut mount: libc::c_int = 0;
    // SAFETY: the path is a C string; `raw` has the room behind its header that the header promises.
    let done = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = raw.bytes.get(..raw.head.handle_bytes as usize).ok_or_else(efault)?;
    Ok(FileHandle {
        kind: raw.head.handle_type,
        bytes: bytes.into(),
    })
}

/// Opens what a handle stands for. `mount` is any real descriptor of the same mount.
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, handle: &FileHandle, flags: i32) -> io::Result<OwnedFd> {
    let mut raw = RawHandle::new(handle.kind, handle.bytes.len());
    raw.bytes
        .get_mut(..handle.bytes.len())
        .ok_or_else(efault)?
        .copy_from_slice(&handle.bytes);
    // SAFETY: `raw` has the bytes behind its header that the header promises.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut raw).cast(), flags | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the descriptor is open and no one else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A lock that belongs to an open file, not to the process (`F_OFD_SETLK`).
pub(crate) fn set_file_lock(file: BorrowedFd<'_>, lock: &libc::flock64) -> io::Result<()> {
    // SAFETY: the kernel reads one `flock64`.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, std::ptr::from_ref(lock)) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A lock in the way of `lock` (`F_OFD_GETLK`), or `lock` with the kind F_UNLCK.
pub(crate) fn get_file_lock(file: BorrowedFd<'_>, mut lock: libc::flock64) -> io::Result<libc::flock64> {
    // SAFETY: the kernel reads and writes one `flock64`.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if done == 0 {
        Ok(lock)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The path that leads to whatever a descriptor stands for, in a buffer of its own.
pub(crate) struct DescriptorPath {
    bytes: [u8; Self::LEN],
}

impl DescriptorPath {
    const PREFIX: &'static [u8] = b"/proc/self/fd/";
    const LEN: usize = 32;

    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        let mut bytes = [0; Self::LEN];
        let mut digits = [0u8; 10];
        let mut rest = fd.as_raw_fd().unsigned_abs();
        let mut count = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        let number = digits.iter().skip(digits.len() - count);
        for (to, from) in bytes.iter_mut().zip(Self::PREFIX.iter().chain(number)) {
            *to = *from;
        }
        Self { bytes }
    }

    /// The whole path.
    pub(crate) fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    /// The last component, to be used with a descriptor of `/proc/self/fd`.
    pub(crate) fn name(&self) -> &CStr {
        let name = self.bytes.get(Self::PREFIX.len()..).unwrap_or_default();
        CStr::from_bytes_until_nul(name).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    use vm_memory::{Bytes, GuestMemoryMmap};

    use super::*;

    const PAGE: u64 = 4096;

    /// Two regions that touch at 8 pages, and one with a gap before it.
    fn memory() -> GuestMemoryMmap<()> {
        let pages = 4096 * 8;
        let ranges = [0, 8 * PAGE, 1 << 30].map(|start| (GuestAddress(start), pages));
        GuestMemoryMmap::from_ranges(&ranges).unwrap()
    }

    fn segments(of: &[(u64, u32)]) -> Vec<Segment> {
        of.iter().map(|&(addr, len)| (GuestAddress(addr), len)).collect()
    }

    /// How many parts the bytes are, and how many bytes these are in all.
    fn counts(segments: &[Segment], offset: usize, len: usize) -> (usize, usize) {
        let mut list = [const { MaybeUninit::zeroed() }; MAX_PARTS];
        let span = Span { segments, offset, len };
        let count = gather(&memory(), &span, &mut list).unwrap();
        // SAFETY: the list was zeroed, which is a value, and then written to.
        let parts = list[..count].iter().map(|part| unsafe { part.assume_init() });
        (count, parts.map(|part| part.iov_len).sum())
    }

    #[test]
    fn buffers_that_follow_one_another_are_one_part() {
        let page = 4096;
        let adjacent = segments(&[(16, 16), (PAGE, page), (2 * PAGE, page), (3 * PAGE, 100)]);
        assert_eq!(counts(&adjacent, 16, usize::MAX), (1, 8292));
        assert_eq!(counts(&adjacent, 0, usize::MAX), (2, 8308));
        assert_eq!(counts(&adjacent, 20, 4096), (1, 4096));
        assert_eq!(counts(&adjacent, 8308, 1), (0, 0));
        assert_eq!(counts(&adjacent, usize::MAX, 1), (0, 0));
        assert_eq!(counts(&adjacent, 16, 0), (0, 0));
        assert_eq!(counts(&[], 0, 1), (0, 0));
        let apart = segments(&[(3 * PAGE, page), (2 * PAGE, page), (5 * PAGE, page)]);
        assert_eq!(counts(&apart, 0, usize::MAX), (3, 3 * 4096));
        assert_eq!(counts(&apart, 4095, 2), (2, 2));
    }

    #[test]
    fn regions_that_touch_are_parts_of_their_own() {
        let across = segments(&[(7 * PAGE, 4096), (8 * PAGE, 4096), (1 << 30, 8)]);
        assert_eq!(counts(&across, 0, usize::MAX), (3, 8200));
        let one = segments(&[(7 * PAGE, 8192)]);
        assert_eq!(counts(&one, 1, 5000), (2, 5000));
    }

    #[test]
    fn what_has_no_room_is_left_for_the_next_call() {
        let many: Vec<_> = (0..300).map(|index| (GuestAddress(index * 16), 8)).collect();
        assert_eq!(counts(&many, 0, usize::MAX), (MAX_PARTS, MAX_PARTS * 8));
        assert_eq!(counts(&many, MAX_PARTS * 8, usize::MAX), (44, 44 * 8));
    }

    #[test]
    fn what_is_not_guest_memory_is_refused() {
        let mut list = [const { MaybeUninit::zeroed() }; MAX_PARTS];
        for bad in [(16 * PAGE, 1), (16 * PAGE - 1, 2), ((1 << 30) - 1, 2), (u64::MAX, 1)] {
            let segments = segments(&[bad]);
            let (offset, len) = (0, usize::MAX);
            let span = Span {
                segments: &segments,
                offset,
                len,
            };
            assert!(gather(&memory(), &span, &mut list).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_go_to_a_file_and_come_back_in_order() {
        let mem = memory();
        let places = segments(&[(0, 16), (15 * PAGE, 4096), (7 * PAGE + 1, 4096), ((1 << 30) + 9, 77)]);
        let data: Vec<u8> = (0..16 + 8192 + 77).map(|index: u32| (index % 251) as u8).collect();
        let mut at = 0;
        for &(addr, len) in &places {
            mem.write_slice(&data[at..at + len as usize], addr).unwrap();
            at += len as usize;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"head").unwrap();
        let span = |offset, len| Span {
            segments: &places,
            offset,
            len,
        };
        let (to, flags) = (Target::At(4), ReadWriteFlags::empty());
        let written = write_from(file.as_fd(), to, flags, &mem, &span(3, 8200));
        assert_eq!(written.unwrap(), 8200);
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut written = Vec::new();
        file.read_to_end(&mut written).unwrap();
        assert_eq!(written[4..], data[3..8203]);

        let other = memory();
        assert_eq!(read_into(file.as_fd(), 4, &other, &span(3, usize::MAX)).unwrap(), 8200);
        let mut read = Vec::new();
        for &(addr, len) in &places {
            let mut part = vec![0; len as usize];
            other.read_slice(&mut part, addr).unwrap();
            read.extend(part);
        }
        assert_eq!(read[..3], [0; 3]);
        assert_eq!(read[3..8203], data[3..8203]);
        assert!(read[8203..].iter().all(|byte| *byte == 0));
    }
}
