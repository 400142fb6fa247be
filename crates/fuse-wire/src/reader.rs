//! Takes arguments off the front of a message.

use std::ffi::CStr;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::RequestError;
use crate::name::{Name, SYMLINK_TARGET_MAX, XATTR_NAME_MAX};

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<T: FromBytes + KnownLayout + Immutable + Unaligned>(&mut self) -> Result<&'a T, RequestError> {
        let (value, rest) = T::ref_from_prefix(self.0).map_err(|_| RequestError::Truncated {
            needed: size_of::<T>(),
            have: self.0.len(),
        })?;
        self.0 = rest;
        Ok(value)
    }

    pub(crate) fn skip(&mut self, len: usize) -> Result<(), RequestError> {
        self.bytes(len).map(drop)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], RequestError> {
        let truncated = RequestError::Truncated {
            needed: len,
            have: self.0.len(),
        };
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn name(&mut self) -> Result<Name<'a>, RequestError> {
        Name::new(self.string()?)
    }

    /// The text of a symbolic link. What is in it is the guest's own affair: it is stored, never followed.
    pub(crate) fn target(&mut self) -> Result<&'a CStr, RequestError> {
        at_most(self.string()?, SYMLINK_TARGET_MAX)
    }

    pub(crate) fn xattr_name(&mut self) -> Result<&'a CStr, RequestError> {
        at_most(self.string()?, XATTR_NAME_MAX)
    }

    pub(crate) fn elements<T>(&mut self, count: u32) -> Result<&'a [T], RequestError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let truncated = RequestError::Truncated {
            needed: count.saturating_mul(size_of::<T>()),
            have: self.0.len(),
        };
        let (elements, rest) = <[T]>::ref_from_prefix_with_elems(self.0, count).map_err(|_| truncated)?;
        self.0 = rest;
        Ok(elements)
    }

    fn string(&mut self) -> Result<&'a CStr, RequestError> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| RequestError::Unterminated)?;
        self.skip(string.to_bytes_with_nul().len())?;
        Ok(string)
    }
}

fn at_most(string: &CStr, max: usize) -> Result<&CStr, RequestError> {
    match string.to_bytes().len() {
        0 => Err(RequestError::BadName),
        len if len > max => Err(RequestError::TooLong { len, max }),
        _ => Ok(string),
    }
}
