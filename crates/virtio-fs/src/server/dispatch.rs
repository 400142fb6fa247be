//! From requests to calls of the back-end, and from its results to replies.

use fuse_wire::{
    AttrOut, EntryOut, FileLock, FsyncFlags, GetattrFlags, HeaderOut, IoctlIn, IoctlOut, KStatfs, LkIn, LkOut,
    LockFlags, LseekOut, OpenInFlags, OpenOut, ReadIn, ReleaseFlags, ReleaseIn, Request, SetattrIn, SetattrValid,
    SizeOut, StatxIn, StatxOut, XattrSizeOut,
};
use zerocopy::{Immutable, IntoBytes};

use super::listing::{Listing, Validity};
use super::{MAX_DATA, Payload, Server};
use crate::errno::{Errno, Result};
use crate::types::decode_device;
use crate::{Attr, Change, Context, Entry, Exchange, Handle, Ioctl, LockRange, NodeId, StatFs, TimeChange, Timestamp};

/// The longest listing in one reply, in bytes. Linux asks for a page, libraries for 32 KiB.
const MAX_LISTING: usize = 64 << 10;

impl Server {
    pub(super) fn perform(
        &mut self,
        by: &Context,
        node: NodeId,
        request: &Request<'_>,
        body_len: usize,
        exchange: &mut dyn Exchange,
    ) -> Result<Payload> {
        match *request {
            Request::Read(args) => self.read(node, args, exchange),
            Request::Write(args) => {
                let size = self.write(node, args, body_len, exchange)?;
                self.reply(&SizeOut {
                    size: size.into(),
                    padding: 0.into(),
                })
            }
            Request::Forget(_)
            | Request::BatchForget(_)
            | Request::Interrupt { .. }
            | Request::Destroy
            | Request::Statfs
            | Request::Syncfs
            | Request::Ioctl { .. } => self.whole(by, node, request, exchange),
            Request::Lookup { .. }
            | Request::Symlink { .. }
            | Request::Mknod { .. }
            | Request::Mkdir { .. }
            | Request::Unlink { .. }
            | Request::Rmdir { .. }
            | Request::Rename { .. }
            | Request::Link { .. }
            | Request::Create { .. }
            | Request::Tmpfile(_) => self.names(by, node, request),
            Request::Getattr(_)
            | Request::Setattr(_)
            | Request::Statx(_)
            | Request::Readlink
            | Request::Access(_)
            | Request::Setxattr { .. }
            | Request::Getxattr { .. }
            | Request::Listxattr { .. }
            | Request::Removexattr { .. } => self.attributes(by, node, request, exchange),
            Request::Opendir(_)
            | Request::Readdir(_)
            | Request::Readdirplus(_)
            | Request::Releasedir(_)
            | Request::Fsyncdir(_) => self.folders(node, request, exchange),
            _ => self.files(by, node, request),
        }
    }

    /// The file system as a whole.
    fn whole(&mut self, by: &Context, node: NodeId, request: &Request<'_>, exchange: &dyn Exchange) -> Result<Payload> {
        match *request {
            Request::Forget(args) => self.fs.forget(node, args.nlookup.get()),
            Request::BatchForget(forgets) => {
                for one in forgets {
                    self.fs.forget(NodeId(one.nodeid.get()), one.nlookup.get());
                }
            }
            Request::Interrupt { unique } => return Ok(Payload::Interrupts(unique)),
            Request::Destroy => {
                self.reset();
                return Ok(Payload::Buffered);
            }
            Request::Statfs => {
                let stat = self.fs.statfs(node)?;
                return self.reply(&statfs_out(&stat));
            }
            Request::Syncfs => {
                return self.fs.syncfs(node).map(Payload::from);
            }
            Request::Ioctl { args, input } => return self.ioctl(by, node, args, input, exchange),
            _ => return Err(Errno::ENOSYS),
        }
        Ok(Payload::NoReply)
    }

    fn ioctl(
        &mut self,
        by: &Context,
        node: NodeId,
        args: &IoctlIn,
        input: &[u8],
        exchange: &dyn Exchange,
    ) -> Result<Payload> {
        let room = exchange.reply_room() - HeaderOut::LEN - size_of::<IoctlOut>();
        let room = room.min(args.out_size.get() as usize);
        let output = &mut self.scratch.value;
        let handle = Handle(args.fh.get());
        let call = Ioctl {
            command: args.cmd.get(),
            argument: args.arg.get(),
            input,
        };
        let result = self.fs.ioctl(by, node, handle, &call, output)?;
        output.truncate(room);
        let out = IoctlOut {
            result: result.into(),
            ..IoctlOut::default()
        };
        self.scratch.reply.put(&out);
        self.scratch.reply.append(&mut self.scratch.value);
        Ok(Payload::Buffered)
    }

    /// What finds, makes and removes names in folders.
    fn names(&mut self, by: &Context, node: NodeId, request: &Request<'_>) -> Result<Payload> {
        let entry = match *request {
            Request::Lookup { name } => return self.lookup(node, name),
            Request::Symlink { name, target } => self.fs.symlink(by, node, name, target)?,
            Request::Mknod { name, args } => {
                let device = decode_device(args.rdev.get());
                self.fs.mknod(by, node, name, args.mode.get(), device)?
            }
            Request::Mkdir { name, args } => self.fs.mkdir(by, node, name, args.mode.get() & 0o7777)?,
            Request::Unlink { name } => return self.fs.unlink(node, name).map(|()| Payload::Buffered),
            Request::Rmdir { name } => return self.fs.rmdir(node, name).map(|()| Payload::Buffered),
            Request::Rename {
                name,
                new_parent,
                new_name,
                flags,
            } => {
                if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT) != 0 {
                    return Err(Errno::EINVAL);
                }
                let renamed = self.fs.rename(node, name, NodeId(new_parent), new_name, flags);
                return renamed.map(|()| Payload::Buffered);
            }
            Request::Link { node: target, new_name } => self.fs.link(NodeId(target), node, new_name)?,
            Request::Create { name, args } => {
                let mode = args.mode.get() & 0o7777;
                let flags = args.flags.get();
                let created = self.fs.create(by, node, name, mode, flags);
                let (entry, opened) = created.map_err(|errno| not_created(errno, flags))?;
                self.reply_entry(&entry)?;
                return self.reply(&OpenOut::new(opened.handle.0, opened.flags));
            }
            Request::Tmpfile(args) => {
                let mode = args.mode.get() & 0o7777;
                let (entry, opened) = self.fs.tmpfile(by, node, mode, args.flags.get())?;
                self.reply_entry(&entry)?;
                return self.reply(&OpenOut::new(opened.handle.0, opened.flags));
            }
            _ => return Err(Errno::ENOSYS),
        };
        self.reply_entry(&entry)
    }

    fn lookup(&mut self, parent: NodeId, name: fuse_wire::Name<'_>) -> Result<Payload> {
        match self.fs.lookup(parent, name) {
            Ok(entry) => self.reply_entry(&entry),
            Err(Errno::ENOENT) if !self.options.negative_valid.is_zero() => {
                self.reply(&EntryOut::negative(self.options.negative_valid))
            }
            Err(errno) => Err(errno),
        }
    }

    fn attributes(
        &mut self,
        by: &Context,
        node: NodeId,
        request: &Request<'_>,
        exchange: &dyn Exchange,
    ) -> Result<Payload> {
        match *request {
            Request::Getattr(args) => {
                let handle = args.flags().contains(GetattrFlags::FH).then(|| Handle(args.fh.get()));
                let attr = self.fs.getattr(node, handle)?;
                self.reply_attr(attr)
            }
            Request::Statx(args) => self.statx(node, args),
            Request::Setattr(args) => {
                let handle = args
                    .valid_fields()
                    .contains(SetattrValid::FH)
                    .then(|| Handle(args.fh.get()));
                let attr = self.fs.setattr(node, handle, &change(args))?;
                self.reply_attr(attr)
            }
            Request::Readlink => {
                self.fs.readlink(node, &mut self.scratch.value)?;
                self.scratch.reply.append(&mut self.scratch.value);
                Ok(Payload::Buffered)
            }
            Request::Access(args) => self.fs.access(by, node, args.mask.get()).map(|()| Payload::Buffered),
            Request::Setxattr { name, value, flags, .. } => {
                self.fs.setxattr(node, name, value, flags).map(|()| Payload::Buffered)
            }
            Request::Removexattr { name } => self.fs.removexattr(node, name).map(|()| Payload::Buffered),
            Request::Getxattr { name, size } => {
                self.fs.getxattr(node, name, &mut self.scratch.value)?;
                self.reply_value(size, exchange)
            }
            Request::Listxattr { size } => {
                self.fs.listxattr(node, &mut self.scratch.value)?;
                self.reply_value(size, exchange)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn statx(&mut self, node: NodeId, args: &StatxIn) -> Result<Payload> {
        let handle = args.flags().contains(GetattrFlags::FH).then(|| Handle(args.fh.get()));
        let attr = self.fs.getattr(node, handle)?;
        let valid = self.options.attr_valid;
        self.reply(&StatxOut {
            attr_valid: valid.as_secs().into(),
            attr_valid_nsec: valid.subsec_nanos().into(),
            stat: attr.to_wire_statx(),
            ..StatxOut::default()
        })
    }

    fn folders(&mut self, node: NodeId, request: &Request<'_>, exchange: &dyn Exchange) -> Result<Payload> {
        match *request {
            Request::Opendir(args) => {
                let opened = self.fs.opendir(node, args.flags.get())?;
                self.reply(&OpenOut::new(opened.handle.0, opened.flags))
            }
            Request::Readdir(args) => self.list(node, args, None, exchange),
            Request::Readdirplus(args) => {
                let valid = Validity {
                    entry: self.options.entry_valid,
                    attr: self.options.attr_valid,
                };
                self.list(node, args, Some(valid), exchange)
            }
            Request::Releasedir(args) => {
                self.fs.releasedir(node, Handle(args.fh.get()));
                Ok(Payload::Buffered)
            }
            Request::Fsyncdir(args) => {
                let data_only = args.flags().contains(FsyncFlags::DATASYNC);
                self.fs
                    .fsyncdir(node, Handle(args.fh.get()), data_only)
                    .map(Payload::from)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn list(
        &mut self,
        node: NodeId,
        args: &ReadIn,
        plus: Option<Validity>,
        exchange: &dyn Exchange,
    ) -> Result<Payload> {
        let room = exchange.reply_room() - HeaderOut::LEN;
        let size = (args.size.get() as usize).min(room).min(MAX_LISTING);
        let (handle, offset) = (Handle(args.fh.get()), args.offset.get());
        let mut listing = Listing::new(self.scratch.reply.resized(size), plus);
        match plus {
            Some(_) => self.fs.readdirplus(node, handle, offset, &mut listing)?,
            None => self.fs.readdir(node, handle, offset, &mut listing)?,
        }
        if listing.is_stuck() {
            // An empty reply would mean the end of the folder.
            return Err(Errno::EINVAL);
        }
        let len = listing.len();
        self.scratch.reply.truncate(len);
        Ok(Payload::Buffered)
    }

    /// What is done with files, open or to be opened.
    fn files(&mut self, by: &Context, node: NodeId, request: &Request<'_>) -> Result<Payload> {
        match *request {
            Request::Open(args) => {
                let kill = args.fuse_flags().contains(OpenInFlags::KILL_SUIDGID);
                let opened = self.fs.open(node, args.flags.get(), kill)?;
                self.reply(&OpenOut::new(opened.handle.0, opened.flags))
            }
            Request::Release(args) => self.release(node, args),
            Request::Flush(args) => {
                let flushed = self.fs.flush(node, Handle(args.fh.get()), args.lock_owner.get());
                flushed.map(|()| Payload::Buffered)
            }
            Request::Fsync(args) => {
                let data_only = args.flags().contains(FsyncFlags::DATASYNC);
                self.fs.fsync(node, Handle(args.fh.get()), data_only).map(Payload::from)
            }
            Request::Getlk(args) => {
                let found = self
                    .fs
                    .getlk(node, Handle(args.fh.get()), args.owner.get(), &lock_range(args))?;
                self.reply(&lk_out(&found))
            }
            Request::Setlk(args) => self.lock(node, args),
            Request::Setlkw(args) => match self.lock(node, args) {
                Err(Errno::EAGAIN) => Ok(Payload::Waits),
                done => done,
            },
            Request::Fallocate(args) => {
                let (handle, mode) = (Handle(args.fh.get()), args.mode.get());
                let done = self
                    .fs
                    .fallocate(by, node, handle, mode, args.offset.get(), args.length.get());
                done.map(|()| Payload::Buffered)
            }
            Request::Lseek(args) => {
                let found = self
                    .fs
                    .lseek(node, Handle(args.fh.get()), args.offset.get(), args.whence.get())?;
                self.reply(&LseekOut { offset: found.into() })
            }
            Request::CopyFileRange(args) => {
                if args.flags.get() != 0 {
                    return Err(Errno::EINVAL);
                }
                let from = (node, Handle(args.fh_in.get()), args.off_in.get());
                let to = (
                    NodeId(args.nodeid_out.get()),
                    Handle(args.fh_out.get()),
                    args.off_out.get(),
                );
                let size = self.fs.copy_file_range(by, from, to, args.len.get())?;
                self.reply(&SizeOut {
                    size: size.into(),
                    padding: 0.into(),
                })
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn release(&mut self, node: NodeId, args: &ReleaseIn) -> Result<Payload> {
        let (handle, owner) = (Handle(args.fh.get()), args.lock_owner.get());
        if args.fuse_flags().contains(ReleaseFlags::FLUSH) {
            // The file is closed whatever comes of it.
            let _ = self.fs.flush(node, handle, owner);
        }
        let unlock = args.fuse_flags().contains(ReleaseFlags::FLOCK_UNLOCK);
        self.fs.release(node, handle, unlock.then_some(owner));
        Ok(Payload::Buffered)
    }

    fn lock(&mut self, node: NodeId, args: &LkIn) -> Result<Payload> {
        let flock = args.flags().contains(LockFlags::FLOCK);
        let locked = self
            .fs
            .setlk(node, Handle(args.fh.get()), args.owner.get(), &lock_range(args), flock);
        locked.map(|()| Payload::Buffered)
    }

    fn reply<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<Payload> {
        self.scratch.reply.put(value);
        Ok(Payload::Buffered)
    }

    fn reply_entry(&mut self, entry: &Entry) -> Result<Payload> {
        let (entry_valid, attr_valid) = (self.options.entry_valid, self.options.attr_valid);
        self.reply(&EntryOut::new(
            entry.node.0,
            0,
            entry.attr.to_wire(),
            entry_valid,
            attr_valid,
        ))
    }

    fn reply_attr(&mut self, attr: Attr) -> Result<Payload> {
        self.reply(&AttrOut::new(attr.to_wire(), self.options.attr_valid))
    }

    /// A value of an extended attribute, or with `size` 0 only its length.
    fn reply_value(&mut self, size: u32, exchange: &dyn Exchange) -> Result<Payload> {
        let len = self.scratch.value.len();
        if size == 0 {
            let size = u32::try_from(len).unwrap_or(MAX_DATA);
            return self.reply(&XattrSizeOut {
                size: size.into(),
                padding: 0.into(),
            });
        }
        let room = exchange.reply_room() - HeaderOut::LEN;
        if len > room.min(size as usize) {
            return Err(Errno::ERANGE);
        }
        self.scratch.reply.append(&mut self.scratch.value);
        Ok(Payload::Buffered)
    }
}

/// The guest's kernel sends CREATE for a name that it takes for free, and so has checked nobody's right to open what has the
/// name now. With ESTALE it looks the name up again and opens what it finds like any other file.
fn not_created(errno: Errno, flags: u32) -> Errno {
    let exclusive = flags.cast_signed() & libc::O_EXCL != 0;
    if errno == Errno::EEXIST && !exclusive {
        Errno::ESTALE
    } else {
        errno
    }
}

fn change(args: &SetattrIn) -> Change {
    let valid = args.valid_fields();
    let time = |set, now, secs: u64, nanos: u32| {
        if valid.contains(now) {
            Some(TimeChange::Now)
        } else {
            valid.contains(set).then(|| {
                TimeChange::To(Timestamp {
                    secs: secs.cast_signed(),
                    nanos,
                })
            })
        }
    };
    Change {
        mode: valid.contains(SetattrValid::MODE).then(|| args.mode.get() & 0o7777),
        uid: valid.contains(SetattrValid::UID).then(|| args.uid.get()),
        gid: valid.contains(SetattrValid::GID).then(|| args.gid.get()),
        size: valid.contains(SetattrValid::SIZE).then(|| args.size.get()),
        atime: time(
            SetattrValid::ATIME,
            SetattrValid::ATIME_NOW,
            args.atime.get(),
            args.atimensec.get(),
        ),
        mtime: time(
            SetattrValid::MTIME,
            SetattrValid::MTIME_NOW,
            args.mtime.get(),
            args.mtimensec.get(),
        ),
        kill_suidgid: valid.contains(SetattrValid::KILL_SUIDGID),
    }
}

fn lock_range(args: &LkIn) -> LockRange {
    let lk = &args.lk;
    LockRange {
        kind: lk.kind.get(),
        start: lk.start.get(),
        end: lk.end.get(),
        pid: lk.pid.get(),
    }
}

fn lk_out(range: &LockRange) -> LkOut {
    let (start, end) = (range.start.into(), range.end.into());
    LkOut {
        lk: FileLock {
            start,
            end,
            kind: range.kind.into(),
            pid: range.pid.into(),
        },
    }
}

fn statfs_out(stat: &StatFs) -> KStatfs {
    KStatfs {
        blocks: stat.blocks.into(),
        bfree: stat.blocks_free.into(),
        bavail: stat.blocks_available.into(),
        files: stat.files.into(),
        ffree: stat.files_free.into(),
        bsize: stat.block_size.into(),
        namelen: stat.name_max.into(),
        frsize: stat.fragment_size.into(),
        ..KStatfs::default()
    }
}
