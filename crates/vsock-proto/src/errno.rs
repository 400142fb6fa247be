//! Linux error numbers as they travel in control replies, whatever the host.

use std::io;

/// A Linux error number, 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(u16);

macro_rules! errnos {
    ($($name:ident = $number:literal,)*) => {
        #[allow(missing_docs, reason = "the names are those of errno(3)")]
        impl Errno {
            $(pub const $name: Errno = Errno($number);)*
        }
    };
}

errnos! {
    EPERM = 1,
    ENOENT = 2,
    EINTR = 4,
    EIO = 5,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EEXIST = 17,
    EINVAL = 22,
    ENFILE = 23,
    EMFILE = 24,
    EPIPE = 32,
    EPROTO = 71,
    EMSGSIZE = 90,
    EOPNOTSUPP = 95,
    EAFNOSUPPORT = 97,
    EADDRINUSE = 98,
    EADDRNOTAVAIL = 99,
    ENETUNREACH = 101,
    ECONNABORTED = 103,
    ECONNRESET = 104,
    ENOBUFS = 105,
    EISCONN = 106,
    ENOTCONN = 107,
    ETIMEDOUT = 110,
    ECONNREFUSED = 111,
    EHOSTUNREACH = 113,
    EINPROGRESS = 115,
}

impl Errno {
    /// From an operating system's number; what is none becomes EIO, since any other value would corrupt the guest's
    /// system call.
    pub fn from_raw(number: i32) -> Errno {
        match u16::try_from(number) {
            Ok(n @ 1..=4095) => Errno(n),
            _ => Errno::EIO,
        }
    }

    /// The number, positive.
    pub fn get(self) -> i32 {
        i32::from(self.0)
    }

    /// As a reply carries it: negated.
    pub fn reply(self) -> i32 {
        -self.get()
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Errno {
        Errno::from_raw(error.raw_os_error().unwrap_or(0))
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        Errno::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_raw_out_of_range_becomes_eio() {
        for number in [0, -5, 4096, i32::MAX, i32::MIN] {
            assert_eq!(Errno::from_raw(number), Errno::EIO, "{number}");
        }
        assert_eq!(Errno::from_raw(111), Errno::ECONNREFUSED);
        assert_eq!(Errno::ECONNREFUSED.reply(), -111);
    }
}
