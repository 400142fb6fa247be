//! Requests with their arguments checked.

use std::ffi::CStr;

use crate::reader::Reader;
use crate::structs::{
    AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, ForgetOne, FsyncIn, GetattrIn,
    GetxattrIn, HalfWord, InitIn, IoctlIn, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn,
    RemoveMappingOne, Rename2In, SetattrIn, SetupMappingIn, SetxattrExt, SetxattrIn, StatxIn, Word, WriteIn,
};
use crate::{InitFlags, Name, Opcode, RequestError};

/// A request. Names and structs are views into the message.
///
/// Node IDs, handles, offsets, sizes and modes are whatever the driver wrote.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "variants and fields are named by the protocol")]
pub enum Request<'a> {
    Lookup {
        name: Name<'a>,
    },
    Forget(&'a ForgetIn),
    BatchForget(&'a [ForgetOne]),
    Getattr(&'a GetattrIn),
    Setattr(&'a SetattrIn),
    Readlink,
    Symlink {
        name: Name<'a>,
        target: &'a CStr,
    },
    Mknod {
        name: Name<'a>,
        args: &'a MknodIn,
    },
    Mkdir {
        name: Name<'a>,
        args: &'a MkdirIn,
    },
    Unlink {
        name: Name<'a>,
    },
    Rmdir {
        name: Name<'a>,
    },
    /// RENAME too: it is RENAME2 without flags.
    Rename {
        name: Name<'a>,
        new_parent: u64,
        new_name: Name<'a>,
        flags: u32,
    },
    /// `node` is what gets the new name; the header's node is the directory.
    Link {
        node: u64,
        new_name: Name<'a>,
    },
    Open(&'a OpenIn),
    Read(&'a ReadIn),
    /// The data follow the arguments and are not part of the view.
    Write(&'a WriteIn),
    Statfs,
    Release(&'a ReleaseIn),
    Fsync(&'a FsyncIn),
    Setxattr {
        name: &'a CStr,
        value: &'a [u8],
        flags: u32,
        kill_sgid: bool,
    },
    /// `size` is the room for the value; 0 asks for its length.
    Getxattr {
        name: &'a CStr,
        size: u32,
    },
    /// `size` is the room for the list; 0 asks for its length.
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a CStr,
    },
    Flush(&'a FlushIn),
    /// `flags2` is 0 where the driver sent none.
    Init {
        args: &'a InitIn,
        flags2: u32,
    },
    Opendir(&'a OpenIn),
    Readdir(&'a ReadIn),
    Readdirplus(&'a ReadIn),
    Releasedir(&'a ReleaseIn),
    Fsyncdir(&'a FsyncIn),
    Getlk(&'a LkIn),
    Setlk(&'a LkIn),
    Setlkw(&'a LkIn),
    Access(&'a AccessIn),
    Create {
        name: Name<'a>,
        args: &'a CreateIn,
    },
    /// `unique` of the request that is to end early.
    Interrupt {
        unique: u64,
    },
    Destroy,
    Ioctl {
        args: &'a IoctlIn,
        input: &'a [u8],
    },
    Fallocate(&'a FallocateIn),
    Lseek(&'a LseekIn),
    CopyFileRange(&'a CopyFileRangeIn),
    Setupmapping(&'a SetupMappingIn),
    Removemapping(&'a [RemoveMappingOne]),
    Syncfs,
    /// It has a name on the wire, which is `/` and means nothing.
    Tmpfile(&'a CreateIn),
    Statx(&'a StatxIn),
}

impl<'a> Request<'a> {
    /// How many of `len` bytes after the header are arguments that [`parse`](Self::parse) wants to see; what follows is
    /// data.
    #[must_use]
    #[inline]
    pub fn arguments_len(opcode: Opcode, len: usize) -> usize {
        match opcode {
            Opcode::WRITE => len.min(size_of::<WriteIn>()),
            _ => len,
        }
    }

    /// Checks the arguments of a request. `body` is the message after its header and without its extensions;
    /// `negotiated` is what INIT agreed on.
    ///
    /// Bytes after the arguments are ignored, as future versions of the protocol add fields at the end.
    ///
    /// # Errors
    /// When the arguments are not all there, when a name is none, and for operations without a name here.
    pub fn parse(opcode: Opcode, body: &'a [u8], negotiated: InitFlags) -> Result<Self, RequestError> {
        let mut r = Reader(body);
        match opcode {
            Opcode::INIT => init(r),
            Opcode::SETXATTR => setxattr(r, negotiated),
            Opcode::LOOKUP
            | Opcode::SYMLINK
            | Opcode::MKNOD
            | Opcode::MKDIR
            | Opcode::UNLINK
            | Opcode::RMDIR
            | Opcode::RENAME
            | Opcode::RENAME2
            | Opcode::LINK
            | Opcode::CREATE => with_names(opcode, r),
            Opcode::GETXATTR => Ok(Self::Getxattr {
                size: r.take::<GetxattrIn>()?.size.get(),
                name: r.xattr_name()?,
            }),
            Opcode::LISTXATTR => Ok(Self::Listxattr {
                size: r.take::<GetxattrIn>()?.size.get(),
            }),
            Opcode::REMOVEXATTR => Ok(Self::Removexattr { name: r.xattr_name()? }),
            Opcode::BATCH_FORGET => {
                let count = r.take::<BatchForgetIn>()?.count.get();
                Ok(Self::BatchForget(r.elements(count)?))
            }
            Opcode::REMOVEMAPPING => {
                let count = r.take::<HalfWord>()?.value.get();
                Ok(Self::Removemapping(r.elements(count)?))
            }
            Opcode::IOCTL => {
                let args = r.take::<IoctlIn>()?;
                let input = r.bytes(usize::try_from(args.in_size.get()).unwrap_or(usize::MAX))?;
                Ok(Self::Ioctl { args, input })
            }
            _ => fixed(opcode, r),
        }
    }
}

/// Requests whose arguments are one struct or nothing.
fn fixed<'a>(opcode: Opcode, mut r: Reader<'a>) -> Result<Request<'a>, RequestError> {
    Ok(match opcode {
        Opcode::FORGET => Request::Forget(r.take()?),
        Opcode::GETATTR => Request::Getattr(r.take()?),
        Opcode::SETATTR => Request::Setattr(r.take()?),
        Opcode::READLINK => Request::Readlink,
        Opcode::OPEN => Request::Open(r.take()?),
        Opcode::READ => Request::Read(r.take()?),
        Opcode::WRITE => Request::Write(r.take()?),
        Opcode::STATFS => Request::Statfs,
        Opcode::RELEASE => Request::Release(r.take()?),
        Opcode::FSYNC => Request::Fsync(r.take()?),
        Opcode::FLUSH => Request::Flush(r.take()?),
        Opcode::OPENDIR => Request::Opendir(r.take()?),
        Opcode::READDIR => Request::Readdir(r.take()?),
        Opcode::READDIRPLUS => Request::Readdirplus(r.take()?),
        Opcode::RELEASEDIR => Request::Releasedir(r.take()?),
        Opcode::FSYNCDIR => Request::Fsyncdir(r.take()?),
        Opcode::GETLK => Request::Getlk(r.take()?),
        Opcode::SETLK => Request::Setlk(r.take()?),
        Opcode::SETLKW => Request::Setlkw(r.take()?),
        Opcode::ACCESS => Request::Access(r.take()?),
        Opcode::INTERRUPT => Request::Interrupt {
            unique: r.take::<Word>()?.value.get(),
        },
        Opcode::DESTROY => Request::Destroy,
        Opcode::FALLOCATE => Request::Fallocate(r.take()?),
        Opcode::LSEEK => Request::Lseek(r.take()?),
        Opcode::COPY_FILE_RANGE => Request::CopyFileRange(r.take()?),
        Opcode::SETUPMAPPING => Request::Setupmapping(r.take()?),
        Opcode::SYNCFS => Request::Syncfs,
        Opcode::TMPFILE => Request::Tmpfile(r.take()?),
        Opcode::STATX => Request::Statx(r.take()?),
        Opcode(number) => return Err(RequestError::UnknownOpcode(number)),
    })
}

/// Requests with names of directory entries. Their fields are taken from the message in the order in which they stand here.
fn with_names<'a>(opcode: Opcode, mut r: Reader<'a>) -> Result<Request<'a>, RequestError> {
    Ok(match opcode {
        Opcode::LOOKUP => Request::Lookup { name: r.name()? },
        Opcode::SYMLINK => Request::Symlink {
            name: r.name()?,
            target: r.target()?,
        },
        Opcode::MKNOD => Request::Mknod {
            args: r.take()?,
            name: r.name()?,
        },
        Opcode::MKDIR => Request::Mkdir {
            args: r.take()?,
            name: r.name()?,
        },
        Opcode::UNLINK => Request::Unlink { name: r.name()? },
        Opcode::RMDIR => Request::Rmdir { name: r.name()? },
        Opcode::RENAME => Request::Rename {
            new_parent: r.take::<Word>()?.value.get(),
            flags: 0,
            name: r.name()?,
            new_name: r.name()?,
        },
        Opcode::RENAME2 => {
            let args = r.take::<Rename2In>()?;
            Request::Rename {
                new_parent: args.newdir.get(),
                flags: args.flags.get(),
                name: r.name()?,
                new_name: r.name()?,
            }
        }
        Opcode::LINK => Request::Link {
            node: r.take::<Word>()?.value.get(),
            new_name: r.name()?,
        },
        Opcode::CREATE => Request::Create {
            args: r.take()?,
            name: r.name()?,
        },
        Opcode(number) => return Err(RequestError::UnknownOpcode(number)),
    })
}

/// `flags2` came with 7.36; before that the struct ends after `flags`.
fn init<'a>(mut r: Reader<'a>) -> Result<Request<'a>, RequestError> {
    let args = r.take::<InitIn>()?;
    let flags2 = r.take::<HalfWord>().map_or(0, |flags2| flags2.value.get());
    Ok(Request::Init { args, flags2 })
}

fn setxattr<'a>(mut r: Reader<'a>, negotiated: InitFlags) -> Result<Request<'a>, RequestError> {
    const ACL_KILL_SGID: u32 = 1;
    let args = r.take::<SetxattrIn>()?;
    let extended = negotiated.contains(InitFlags::SETXATTR_EXT);
    let setxattr_flags = if extended {
        r.take::<SetxattrExt>()?.setxattr_flags.get()
    } else {
        0
    };
    let name = r.xattr_name()?;
    let value = r.bytes(usize::try_from(args.size.get()).unwrap_or(usize::MAX))?;
    Ok(Request::Setxattr {
        name,
        value,
        flags: args.flags.get(),
        kill_sgid: setxattr_flags & ACL_KILL_SGID != 0,
    })
}
