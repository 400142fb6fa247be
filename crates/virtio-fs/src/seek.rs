//! Files without holes.

use crate::errno::{Errno, Result};

/// Where data and the next hole are in a file that has no hole but its end.
pub(crate) fn seek_in_data(size: u64, offset: u64, whence: u32) -> Result<u64> {
    match whence.cast_signed() {
        _ if offset >= size => Err(Errno::ENXIO),
        libc::SEEK_DATA => Ok(offset),
        libc::SEEK_HOLE => Ok(size),
        _ => Err(Errno::EINVAL),
    }
}
