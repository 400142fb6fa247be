//! A virtio-fs device (virtio 1.3, 5.11) with its own FUSE server, confined to the folder it shares.
//!
//! From the outside in:
//! - [`Fs`] is the device for the transport of this workspace (feature `transport`). It is a thin adapter over
//! - [`Handler`], which takes rings, guest memory and a server, moves chains and decides about interrupts, over
//! - [`Server`], which takes one FUSE message at a time as an [`Exchange`], checks it, and calls
//! - a [`FileSystem`]: [`Passthrough`](passthrough::Passthrough) for a folder or a file of the host, [`MemoryFs`] for
//!   a tree in memory, [`Overlay`](overlay::Overlay) for virtual files over another, [`ReadOnly`] around any.
//!
//! # Whom to trust
//! The guest, its kernel included, is not trusted. Names are checked before a back-end sees them; node IDs and handles
//! are looked up, never taken for addresses; every table is bounded; a read-only file system is read-only in the server,
//! whatever the guest mounted. Permission bits inside the share are the guest kernel's business, as it is for a local
//! disk: the device acts with the rights of the process and cannot tell one guest user from another.
//!
//! # Contract
//! One thread at a time; the crate starts none. `Handler::process` handles what is in the rings and returns. What may be done
//! elsewhere meanwhile is a [`Task`], for whatever thread the caller has: see [`Handler::take_task`].

mod aside;
mod boxed;
mod cached_reads;
mod chain_exchange;
mod durability;
mod errno;
mod exchange;
mod filesystem;
mod handler;
mod hold;
mod lane;
mod memory;
pub mod overlay;
pub mod passthrough;
mod read_only;
mod seek;
mod server;
mod short;
mod single_file;
mod sys;
mod types;

#[cfg(feature = "transport")]
mod device;

pub use aside::Task;
#[cfg(feature = "transport")]
pub use device::{Fs, FsConfig, FsConfigError, FsWorker};
pub use durability::Durability;
pub use errno::Errno;
pub use exchange::{DataIn, DataOut, Exchange, Fault, SliceExchange, Source, Target};
pub use filesystem::{DirSink, FileSystem};
pub use handler::{Handler, HandlerStats, Progress};
pub use memory::MemoryFs;
pub use read_only::ReadOnly;
pub use server::{Outcome, Server, ServerStats};
pub use single_file::SingleFile;
pub use types::{
    Attr, Change, Completion, Context, DirEntry, Entry, FileKind, Handle, Ioctl, Job, LockRange, NodeId, Opened,
    Options, StatFs, TimeChange, Timestamp,
};

/// The protocol underneath.
pub use fuse_wire;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
