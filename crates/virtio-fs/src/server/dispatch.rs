//! From requests to calls of the back-end. What concerns names, attributes, folders and files is in modules of their own.

use fuse_wire::{IoctlIn, IoctlOut, KStatfs, Request};

use super::reply::payload_room;
use super::{Payload, Server};
use crate::errno::{Errno, Result};
use crate::{Context, Exchange, Handle, Ioctl, NodeId, StatFs};

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
            Request::Write(args) => self.write(node, args, body_len, exchange),
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
        let room = payload_room(exchange).saturating_sub(size_of::<IoctlOut>());
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
