//! What is known of a request before it is carried out.

use fuse_wire::{
    AttrOut, EntryOut, IoctlOut, KStatfs, LkOut, LseekOut, OpenOut, Request, SizeOut, StatxOut, XattrSizeOut,
};

/// Whether a request changes something in the share. Each operation is named, so that a new one cannot slip through.
pub(super) fn mutates(request: &Request<'_>) -> bool {
    match request {
        Request::Setattr(_)
        | Request::Symlink { .. }
        | Request::Mknod { .. }
        | Request::Mkdir { .. }
        | Request::Unlink { .. }
        | Request::Rmdir { .. }
        | Request::Rename { .. }
        | Request::Link { .. }
        | Request::Write(_)
        | Request::Setxattr { .. }
        | Request::Removexattr { .. }
        | Request::Create { .. }
        | Request::Fallocate(_)
        | Request::CopyFileRange(_)
        | Request::Setupmapping(_)
        | Request::Tmpfile(_) => true,
        Request::Open(args) => opens_for_change(args.flags.get()),
        // It would stop those who may write.
        Request::Setlk(args) | Request::Setlkw(args) => args.lk.kind.get().cast_signed() == libc::F_WRLCK,
        Request::Lookup { .. }
        | Request::Forget(_)
        | Request::BatchForget(_)
        | Request::Getattr(_)
        | Request::Readlink
        | Request::Read(_)
        | Request::Statfs
        | Request::Release(_)
        | Request::Fsync(_)
        | Request::Getxattr { .. }
        | Request::Listxattr { .. }
        | Request::Flush(_)
        | Request::Init { .. }
        | Request::Opendir(_)
        | Request::Readdir(_)
        | Request::Readdirplus(_)
        | Request::Releasedir(_)
        | Request::Fsyncdir(_)
        | Request::Getlk(_)
        | Request::Access(_)
        | Request::Interrupt { .. }
        | Request::Destroy
        | Request::Ioctl { .. }
        | Request::Lseek(_)
        | Request::Removemapping(_)
        | Request::Syncfs
        | Request::Statx(_) => false,
        // `Request` may grow; what is not known here is not let through.
        _ => true,
    }
}

/// Whether a file is opened with these flags to be changed.
pub(crate) fn opens_for_change(flags: u32) -> bool {
    let flags = flags.cast_signed();
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_TRUNC | libc::O_CREAT) != 0
}

/// The length of the reply after its header, in bytes: a request whose reply would not fit is not carried out, as the
/// guest would never learn of the node or handle that it made. Replies of free length count as 0.
pub(super) fn payload_len(request: &Request<'_>) -> usize {
    match request {
        Request::Lookup { .. }
        | Request::Symlink { .. }
        | Request::Mknod { .. }
        | Request::Mkdir { .. }
        | Request::Link { .. } => size_of::<EntryOut>(),
        Request::Create { .. } | Request::Tmpfile(_) => size_of::<EntryOut>() + size_of::<OpenOut>(),
        Request::Getattr(_) | Request::Setattr(_) => size_of::<AttrOut>(),
        Request::Open(_) | Request::Opendir(_) => size_of::<OpenOut>(),
        Request::Write(_) | Request::CopyFileRange(_) => size_of::<SizeOut>(),
        Request::Statfs => size_of::<KStatfs>(),
        Request::Getxattr { size: 0, .. } | Request::Listxattr { size: 0 } => size_of::<XattrSizeOut>(),
        Request::Getlk(_) => size_of::<LkOut>(),
        Request::Ioctl { .. } => size_of::<IoctlOut>(),
        Request::Lseek(_) => size_of::<LseekOut>(),
        Request::Statx(_) => size_of::<StatxOut>(),
        _ => 0,
    }
}
