//! Attributes of inodes, and what else is asked of one that need not be open.

use fuse_wire::{GetattrFlags, Request, SetattrIn, SetattrValid, StatxIn, StatxOut};

use super::{Payload, Server};
use crate::errno::{Errno, Result};
use crate::{Change, Context, Exchange, Handle, NodeId, TimeChange, Timestamp};

impl Server {
    pub(super) fn attributes(
        &mut self,
        by: &Context,
        node: NodeId,
        request: &Request<'_>,
        exchange: &dyn Exchange,
    ) -> Result<Payload> {
        match *request {
            Request::Getattr(args) => {
                let handle = open_handle(args.flags(), args.fh.get());
                let attr = self.fs.getattr(node, handle)?;
                self.reply_attr(attr)
            }
            Request::Statx(args) => self.statx(node, args),
            Request::Setattr(args) => self.setattr(node, args),
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

    fn setattr(&mut self, node: NodeId, args: &SetattrIn) -> Result<Payload> {
        let has_handle = args.valid_fields().contains(SetattrValid::FH);
        let handle = has_handle.then(|| Handle(args.fh.get()));
        let attr = self.fs.setattr(node, handle, &change(args))?;
        self.reply_attr(attr)
    }

    fn statx(&mut self, node: NodeId, args: &StatxIn) -> Result<Payload> {
        let handle = open_handle(args.flags(), args.fh.get());
        let attr = self.fs.getattr(node, handle)?;
        let valid = self.options.attr_valid;
        self.reply(&StatxOut {
            attr_valid: valid.as_secs().into(),
            attr_valid_nsec: valid.subsec_nanos().into(),
            stat: attr.to_wire_statx(),
            ..StatxOut::default()
        })
    }
}

fn open_handle(flags: GetattrFlags, fh: u64) -> Option<Handle> {
    flags.contains(GetattrFlags::FH).then_some(Handle(fh))
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
