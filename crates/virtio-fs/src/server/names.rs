//! What finds, makes and removes names in folders.

use fuse_wire::{CreateIn, EntryOut, Name, Request};

use super::{Payload, Server};
use crate::errno::{Errno, Result};
use crate::types::decode_device;
use crate::{Context, NodeId};

impl Server {
    pub(super) fn names(&mut self, by: &Context, node: NodeId, request: &Request<'_>) -> Result<Payload> {
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
            } => return self.rename((node, name), (NodeId(new_parent), new_name), flags),
            Request::Link { node: target, new_name } => self.fs.link(NodeId(target), node, new_name)?,
            Request::Create { name, args } => return self.create(by, node, name, args),
            Request::Tmpfile(args) => return self.tmpfile(by, node, args),
            _ => return Err(Errno::ENOSYS),
        };
        self.reply_entry(&entry)
    }

    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Payload> {
        match self.fs.lookup(parent, name) {
            Ok(entry) => self.reply_entry(&entry),
            Err(Errno::ENOENT) if !self.options.negative_valid.is_zero() => {
                self.reply(&EntryOut::negative(self.options.negative_valid))
            }
            Err(errno) => Err(errno),
        }
    }

    fn rename(&mut self, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), flags: u32) -> Result<Payload> {
        if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT) != 0 {
            return Err(Errno::EINVAL);
        }
        let renamed = self.fs.rename(from.0, from.1, to.0, to.1, flags);
        renamed.map(|()| Payload::Buffered)
    }

    fn create(&mut self, by: &Context, parent: NodeId, name: Name<'_>, args: &CreateIn) -> Result<Payload> {
        let (mode, flags) = (args.mode.get() & 0o7777, args.flags.get());
        let created = self.fs.create(by, parent, name, mode, flags);
        let (entry, opened) = created.map_err(|errno| not_created(errno, flags))?;
        self.reply_entry(&entry)?;
        self.reply_opened(&opened)
    }

    fn tmpfile(&mut self, by: &Context, parent: NodeId, args: &CreateIn) -> Result<Payload> {
        let mode = args.mode.get() & 0o7777;
        let (entry, opened) = self.fs.tmpfile(by, parent, mode, args.flags.get())?;
        self.reply_entry(&entry)?;
        self.reply_opened(&opened)
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
