//! Names: the strings a guest could break out with.

use std::ffi::CStr;

use crate::RequestError;

/// The longest name of a directory entry, in bytes (Linux NAME_MAX).
pub const NAME_MAX: usize = 255;

/// The longest target of a symbolic link, in bytes (Linux PATH_MAX less its NUL).
pub const SYMLINK_TARGET_MAX: usize = 4095;

/// The longest name of an extended attribute, in bytes (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_MAX: usize = 255;

/// The name of a directory entry: 1 to 255 bytes, no slash, neither `.` nor `..`.
///
/// There is no other way to get one than through the check, so what holds a `Name` can pass it to the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`RequestError::BadName`] and [`RequestError::TooLong`].
    pub fn new(name: &'a CStr) -> Result<Self, RequestError> {
        let bytes = name.to_bytes();
        if bytes.len() > NAME_MAX {
            return Err(RequestError::TooLong {
                len: bytes.len(),
                max: NAME_MAX,
            });
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
            return Err(RequestError::BadName);
        }
        Ok(Self(name))
    }

    /// The name as system calls take it.
    #[must_use]
    #[inline]
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// The bytes without the NUL.
    #[must_use]
    #[inline]
    pub fn to_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

impl std::fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.0, f)
    }
}
