//! The FUSE protocol on the wire, versions 7.31 to 7.41 as Linux speaks them.
//!
//! A request is a fixed header ([`HeaderIn`]) and arguments; [`Request::parse`] checks the arguments once and gives a
//! view into the caller's bytes whose fields cannot fail any more. A reply is [`HeaderOut`] and one of the structs
//! here, or a run of directory entries ([`DirentBuffer`]). [`negotiate`] answers INIT and is a pure function.
//!
//! All integers are little-endian, as virtio-fs wants it (virtio 1.3, 5.11.6.1); on a little-endian machine that is
//! what `/dev/fuse` speaks too.
//!
//! What this crate does not know: inodes, files, queues, guest memory.
//!
//! ```
//! use fuse_wire::{HeaderIn, InitFlags, Opcode, Request};
//! use zerocopy::FromBytes;
//!
//! // LOOKUP of "etc" in the root, as the driver sends it.
//! let mut message = Vec::new();
//! message.extend_from_slice(&44u32.to_le_bytes()); // length of all
//! message.extend_from_slice(&1u32.to_le_bytes()); // opcode
//! message.extend_from_slice(&7u64.to_le_bytes()); // unique
//! message.extend_from_slice(&1u64.to_le_bytes()); // nodeid
//! message.extend_from_slice(&[0; 16]); // uid, gid, pid, extensions
//! message.extend_from_slice(b"etc\0");
//!
//! let (header, arguments) = HeaderIn::ref_from_prefix(&message).unwrap();
//! assert_eq!(header.opcode(), Opcode::LOOKUP);
//! match Request::parse(header.opcode(), arguments, InitFlags::empty()) {
//!     Ok(Request::Lookup { name }) => assert_eq!(name.to_bytes(), b"etc"),
//!     other => panic!("{other:?}"),
//! }
//! ```

#![forbid(unsafe_code)]

mod dirent;
mod error;
mod flags;
mod init;
mod name;
mod opcode;
mod reader;
mod reply;
mod request;
mod structs;

pub use dirent::DirentBuffer;
pub use error::RequestError;
pub use flags::{
    FsyncFlags, GetattrFlags, InitFlags, LockFlags, OpenInFlags, OpenOutFlags, ReleaseFlags, SetattrValid, WriteFlags,
};
pub use init::{INIT_OUT_LEN, InitReply, MIN_MINOR, Offer, negotiate};
pub use name::{NAME_MAX, Name, SYMLINK_TARGET_MAX, XATTR_NAME_MAX};
pub use opcode::Opcode;
pub use reply::{
    AttrOut, EntryOut, HeaderOut, InitOut, IoctlOut, KStatfs, LkOut, LseekOut, OpenOut, SizeOut, StatxOut, WireStatx,
    WireTime, XattrSizeOut,
};
pub use request::Request;
pub use structs::{
    AccessIn, Attr, CopyFileRangeIn, CreateIn, FallocateIn, FileLock, FlushIn, ForgetIn, ForgetOne, FsyncIn, GetattrIn,
    HeaderIn, InitIn, IoctlIn, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, RemoveMappingOne, SetattrIn,
    SetupMappingIn, StatxIn, WriteIn,
};

/// The major version of the protocol.
pub const MAJOR: u32 = 7;

/// The highest minor version spoken here.
pub const MINOR: u32 = 41;

/// The node ID of the root.
pub const ROOT_ID: u64 = 1;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
