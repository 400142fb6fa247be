//! Files, open or to be opened, and their data.

use fuse_wire::{
    CopyFileRangeIn, FallocateIn, FileLock, FsyncFlags, HeaderIn, HeaderOut, InitFlags, LkIn, LkOut, LockFlags,
    LseekOut, OpenInFlags, ReadIn, ReleaseFlags, ReleaseIn, Request, WriteFlags, WriteIn,
};

use super::reply::payload_room;
use super::{MAX_DATA, Payload, Server};
use crate::errno::{Errno, Result};
use crate::{Context, DataIn, DataOut, Durability, Exchange, Handle, LockRange, NodeId};

impl Server {
    pub(super) fn files(&mut self, by: &Context, node: NodeId, request: &Request<'_>) -> Result<Payload> {
        match *request {
            Request::Open(args) => {
                let kill = args.fuse_flags().contains(OpenInFlags::KILL_SUIDGID);
                let opened = self.fs.open(node, args.flags.get(), kill)?;
                self.reply_opened(&opened)
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
                let wanted = lock_range(args);
                let found = self.fs.getlk(node, Handle(args.fh.get()), args.owner.get(), &wanted)?;
                self.reply(&lk_out(&found))
            }
            Request::Setlk(args) => self.lock(node, args),
            Request::Setlkw(args) => match self.lock(node, args) {
                Err(Errno::EAGAIN) => Ok(Payload::Waits),
                done => done,
            },
            Request::Fallocate(args) => self.fallocate(by, node, args),
            Request::Lseek(args) => {
                let (handle, offset) = (Handle(args.fh.get()), args.offset.get());
                let found = self.fs.lseek(node, handle, offset, args.whence.get())?;
                self.reply(&LseekOut { offset: found.into() })
            }
            Request::CopyFileRange(args) => self.copy_file_range(by, node, args),
            _ => Err(Errno::ENOSYS),
        }
    }

    pub(super) fn read(&mut self, node: NodeId, args: &ReadIn, exchange: &mut dyn Exchange) -> Result<Payload> {
        let size = (args.size.get().min(MAX_DATA) as usize).min(payload_room(exchange));
        let mut out = DataOut::new(exchange, HeaderOut::LEN, size);
        self.fs.read(node, Handle(args.fh.get()), args.offset.get(), &mut out)?;
        Ok(Payload::InPlace(out.filled()))
    }

    pub(super) fn write(
        &mut self,
        node: NodeId,
        args: &WriteIn,
        body_len: usize,
        exchange: &dyn Exchange,
    ) -> Result<Payload> {
        let size = args.size.get() as usize;
        if size > body_len - size_of_val(args) {
            return Err(self.malformed(Errno::EINVAL));
        }
        let mut data =
            DataIn::new(exchange, HeaderIn::LEN + size_of_val(args), size).durable(Durability::of(args.flags.get()));
        if self.appends(args) {
            data = data.appending();
        }
        let (handle, offset) = (Handle(args.fh.get()), args.offset.get());
        let written = self.fs.write(node, handle, offset, &mut data, args.fuse_flags())?;
        self.reply_size(written)
    }

    /// Whether the data goes to the end of the file. Pages of a mapping have their place, whoever's file they come through;
    /// and a guest that collects writes is the only one to know where the end is.
    fn appends(&self, args: &WriteIn) -> bool {
        let collects = self.session.unwrap_or_default().contains(InitFlags::WRITEBACK_CACHE);
        let flags = args.flags.get().cast_signed();
        flags & libc::O_APPEND != 0 && !args.fuse_flags().contains(WriteFlags::CACHE) && !collects
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

    fn fallocate(&mut self, by: &Context, node: NodeId, args: &FallocateIn) -> Result<Payload> {
        let (handle, mode) = (Handle(args.fh.get()), args.mode.get());
        let (offset, length) = (args.offset.get(), args.length.get());
        let done = self.fs.fallocate(by, node, handle, mode, offset, length);
        done.map(|()| Payload::Buffered)
    }

    fn copy_file_range(&mut self, by: &Context, node: NodeId, args: &CopyFileRangeIn) -> Result<Payload> {
        if args.flags.get() != 0 {
            return Err(Errno::EINVAL);
        }
        let from = (node, Handle(args.fh_in.get()), args.off_in.get());
        let (to_node, to_handle) = (NodeId(args.nodeid_out.get()), Handle(args.fh_out.get()));
        let to = (to_node, to_handle, args.off_out.get());
        let copied = self.fs.copy_file_range(by, from, to, args.len.get())?;
        self.reply_size(copied)
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
