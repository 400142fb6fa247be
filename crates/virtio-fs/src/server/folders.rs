//! Open folders.

use fuse_wire::{FsyncFlags, ReadIn, Request};

use super::listing::{Listing, Validity};
use super::reply::payload_room;
use super::{Payload, Server};
use crate::errno::{Errno, Result};
use crate::{Exchange, Handle, NodeId};

/// The longest listing in one reply, in bytes. Linux asks for a page, libraries for 32 KiB.
const MAX_LISTING: usize = 64 << 10;

impl Server {
    pub(super) fn folders(&mut self, node: NodeId, request: &Request<'_>, exchange: &dyn Exchange) -> Result<Payload> {
        match *request {
            Request::Opendir(args) => {
                let opened = self.fs.opendir(node, args.flags.get())?;
                self.reply_opened(&opened)
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
        let size = (args.size.get() as usize).min(payload_room(exchange)).min(MAX_LISTING);
        let (handle, offset) = (Handle(args.fh.get()), args.offset.get());
        let mut listing = Listing::new(self.scratch.reply.resized(size), plus);
        let listed = match plus {
            Some(_) => self.fs.readdirplus(node, handle, offset, &mut listing),
            None => self.fs.readdir(node, handle, offset, &mut listing),
        };
        // The entries before an error are looked up for the guest, which would not know of them. It asks again behind them.
        if listing.is_empty() {
            listed?;
        }
        if listing.is_stuck() {
            // An empty reply would mean the end of the folder.
            return Err(Errno::EINVAL);
        }
        let len = listing.len();
        self.scratch.reply.truncate(len);
        Ok(Payload::Buffered)
    }
}
