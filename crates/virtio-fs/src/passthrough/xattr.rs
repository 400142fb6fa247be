//! Extended attributes.
//!
//! `user.*` is the guest's own. `security.capability` goes with set-user-ID bits: who can set the one can set the other.
//! Everything else means something to the host (its access control lists, its labels, its overlays) and does not exist
//! here. That goes for `user.overlay.*` too: to an overlay mounted with `userxattr` those are whiteouts and redirects.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::XattrFlags;

use super::Passthrough;
use crate::errno::{Errno, Result};
use crate::sys::DescriptorPath;
use crate::{FileKind, NodeId};

/// The longest value and the longest list of Linux, in bytes.
const XATTR_SIZE_MAX: usize = 65_536;

/// Longer than `security.capability`, which Linux asks for before the first write to each file. The host's kernel clears
/// as much memory as it is offered.
const XATTR_SIZE_USUAL: usize = 256;

fn is_passed_on(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")) || name == b"security.capability"
}

impl Passthrough {
    fn check(&self, name: &CStr) -> Result<()> {
        if !self.config.xattr {
            return Err(Errno::ENOSYS);
        }
        if is_passed_on(name.to_bytes()) {
            Ok(())
        } else {
            Err(Errno::EOPNOTSUPP)
        }
    }

    pub(super) fn do_setxattr(&mut self, node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        self.check(name)?;
        let slot = self.nodes.slot(node)?;
        let fd = self.fd_at(slot)?;
        self.changes(slot);
        let path = DescriptorPath::new(fd.as_fd());
        Ok(rustix::fs::setxattr(
            path.path(),
            name,
            value,
            XattrFlags::from_bits_retain(flags),
        )?)
    }

    pub(super) fn do_getxattr(&mut self, node: NodeId, name: &CStr, value: &mut Vec<u8>) -> Result<()> {
        self.check(name)?;
        let slot = self.nodes.slot(node)?;
        if !matches!(self.kind(slot)?, FileKind::Regular | FileKind::Directory) {
            // No other kind has these attributes, and asking costs a descriptor.
            return Err(Errno::ENODATA);
        }
        let fd = self.fd_at(slot)?;
        let path = DescriptorPath::new(fd.as_fd());
        value.resize(XATTR_SIZE_USUAL, 0);
        let mut got = rustix::fs::getxattr(path.path(), name, value.as_mut_slice());
        if got == Err(rustix::io::Errno::RANGE) {
            value.resize(XATTR_SIZE_MAX, 0);
            got = rustix::fs::getxattr(path.path(), name, value.as_mut_slice());
        }
        value.truncate(got?);
        Ok(())
    }

    pub(super) fn do_listxattr(&mut self, node: NodeId, names: &mut Vec<u8>) -> Result<()> {
        if !self.config.xattr {
            return Err(Errno::ENOSYS);
        }
        let fd = self.fd(node)?;
        let path = DescriptorPath::new(fd.as_fd());
        let mut all = vec![0; XATTR_SIZE_MAX];
        let len = match rustix::fs::listxattr(path.path(), all.as_mut_slice()) {
            Ok(len) => len,
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            Err(errno) => return Err(errno.into()),
        };
        all.truncate(len);
        for name in all.split_inclusive(|byte| *byte == 0) {
            if is_passed_on(name.strip_suffix(b"\0").unwrap_or(name)) {
                names.extend_from_slice(name);
            }
        }
        Ok(())
    }

    pub(super) fn do_removexattr(&mut self, node: NodeId, name: &CStr) -> Result<()> {
        self.check(name)?;
        let slot = self.nodes.slot(node)?;
        let fd = self.fd_at(slot)?;
        self.changes(slot);
        let path = DescriptorPath::new(fd.as_fd());
        Ok(rustix::fs::removexattr(path.path(), name)?)
    }
}
