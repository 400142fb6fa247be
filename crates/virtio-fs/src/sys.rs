//! System calls that rustix does not have, or not over guest memory.

#![allow(
    unsafe_code,
    reason = "guest memory must not become references, and some calls have no safe wrapper"
)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use virtio_ring::{ChainError, Slices};
use vm_memory::GuestMemoryBackend;

/// How many parts of guest memory go into one system call. More parts take several calls.
const MAX_PARTS: usize = 256;

pub(crate) fn efault() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

/// Reads from a file at `offset` into guest memory. Gives how many bytes it were, which can be fewer than asked for.
pub(crate) fn read_into<M: GuestMemoryBackend>(
    file: BorrowedFd<'_>,
    offset: u64,
    slices: Slices<'_, M>,
) -> io::Result<usize> {
    with_parts(slices, |parts, count| {
        // SAFETY: `parts` are `count` ranges inside guest memory, which stays mapped for the length of this call as
        // `Slices` borrows it; nothing in this process holds a reference into it.
        unsafe { libc::preadv64(file.as_raw_fd(), parts, count, offset.cast_signed()) }
    })
}

/// Writes guest memory to a file at `offset`. Gives how many bytes it were, which can be fewer than asked for.
pub(crate) fn write_from<M: GuestMemoryBackend>(
    file: BorrowedFd<'_>,
    offset: u64,
    slices: Slices<'_, M>,
) -> io::Result<usize> {
    with_parts(slices, |parts, count| {
        // SAFETY: as in `read_into`; the kernel only reads, and what the guest changes meanwhile is its own data.
        unsafe { libc::pwritev64(file.as_raw_fd(), parts, count, offset.cast_signed()) }
    })
}

fn with_parts<M: GuestMemoryBackend>(
    slices: Slices<'_, M>,
    call: impl FnOnce(*const libc::iovec, libc::c_int) -> libc::ssize_t,
) -> io::Result<usize> {
    let mut parts = [MaybeUninit::<libc::iovec>::uninit(); MAX_PARTS];
    let mut count = 0;
    for (part, slice) in parts.iter_mut().zip(slices) {
        let slice = slice.map_err(|error: ChainError| io::Error::other(error))?;
        // The guard matters only for memory that is mapped on demand, which no one here uses: `Slices` keeps the
        // mapping alive.
        let base = slice.ptr_guard_mut().as_ptr().cast();
        part.write(libc::iovec {
            iov_base: base,
            iov_len: slice.len(),
        });
        count += 1;
    }
    let done = call(parts.as_ptr().cast(), count);
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
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
