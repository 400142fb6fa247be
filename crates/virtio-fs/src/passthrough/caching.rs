//! How the guest's kernel caches a file that it opens.

use fuse_wire::OpenOutFlags;

use super::CachePolicy;
use super::nodes::Version;

/// What is known of a file when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// How it looked when it was opened before.
    pub(super) last: Option<Version>,
    /// How it looks.
    pub(super) now: Version,
    /// What the guest's kernel takes for its size, in bytes.
    pub(super) size_told: u64,
    /// What it is open for.
    pub(super) access: Access,
    /// Who has it open already.
    pub(super) others: Others,
    /// The guest maps files that bypass its cache (FUSE 7.39).
    pub(super) maps_uncached: bool,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
    /// To be written and not read.
    Write,
    /// To be written at its end, and perhaps read.
    Append,
}

impl Access {
    /// As the flags of the guest's `open(2)` say.
    pub(super) fn of(flags: u32) -> Self {
        let flags = flags.cast_signed();
        match flags & libc::O_ACCMODE {
            libc::O_WRONLY | libc::O_RDWR if flags & libc::O_APPEND != 0 => Self::Append,
            libc::O_WRONLY => Self::Write,
            libc::O_RDWR => Self::ReadWrite,
            _ => Self::Read,
        }
    }

    /// Whether it is better off without the guest's cache, see [`Opening::is_direct`].
    fn shuns_cache(self) -> bool {
        matches!(self, Self::Write | Self::Append)
    }
}

/// Who else in the guest has a file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    Nobody,
    /// Nobody of them writes around the guest's cache.
    Somebody,
    /// Somebody writes around the guest's cache.
    DirectWriter,
}

impl Opening {
    /// The flags of the reply.
    pub(super) fn flags(&self, policy: CachePolicy) -> OpenOutFlags {
        match policy {
            CachePolicy::None => OpenOutFlags::DIRECT_IO | OpenOutFlags::PARALLEL_DIRECT_WRITES,
            CachePolicy::Auto if self.size_changed() || self.is_direct() => OpenOutFlags::DIRECT_IO,
            CachePolicy::Auto if self.last == Some(self.now) => OpenOutFlags::KEEP_CACHE,
            CachePolicy::Auto => OpenOutFlags::empty(),
            CachePolicy::Always => OpenOutFlags::KEEP_CACHE,
        }
    }

    /// Whether this is a writer of a file that bypasses the cache, which others have to know.
    pub(super) fn writes_directly(&self, flags: OpenOutFlags) -> bool {
        self.access.shuns_cache() && self.maps_uncached && flags.contains(OpenOutFlags::DIRECT_IO)
    }

    /// The guest does not ask for the size at an open, and a read through the cache ends there: where the host has
    /// changed it, what is read must not come from the cache.
    fn size_changed(&self) -> bool {
        self.now.0 != self.size_told
    }

    /// Who only writes has no use for the cache: each write goes to the host at once in any case, and what it left in the
    /// cache would be dropped by the next open, as it changed the file. Around the cache the guest neither copies it nor asks
    /// for `security.capability` first.
    ///
    /// Who appends may read too, and asks the host each time then. Through the cache one record would be several WRITEs, that end
    /// with the pages of what the guest takes for the file, and the host puts what others append between them.
    ///
    /// But a cache that somebody else reads is written through, and nobody fills it while it is bypassed: one file has one
    /// of both at a time.
    fn is_direct(&self) -> bool {
        self.maps_uncached
            && match self.others {
                Others::Nobody => self.access.shuns_cache(),
                Others::Somebody => false,
                Others::DirectWriter => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    const BEFORE: Version = version(10, 1);
    const NOW: Version = version(10, 2);

    const fn version(size: u64, secs: i64) -> Version {
        let time = Timestamp { secs, nanos: 0 };
        (size, time, time)
    }

    /// A reader of a file that nobody has open and that looks as the guest thinks.
    const READER: Opening = Opening {
        last: None,
        now: NOW,
        size_told: 10,
        access: Access::Read,
        others: Others::Nobody,
        maps_uncached: true,
    };
    const WRITER: Opening = Opening {
        access: Access::Write,
        ..READER
    };
    const APPENDER: Opening = Opening {
        access: Access::Append,
        ..READER
    };

    #[test]
    fn reader_keeps_what_is_cached_while_the_file_is_the_same() {
        for (last, flags) in [
            (None, OpenOutFlags::empty()),
            (Some(BEFORE), OpenOutFlags::empty()),
            (Some(NOW), OpenOutFlags::KEEP_CACHE),
        ] {
            for others in [Others::Nobody, Others::Somebody] {
                let opening = Opening { last, others, ..READER };
                assert_eq!(opening.flags(CachePolicy::Auto), flags, "{opening:?}");
            }
        }
    }

    #[test]
    fn file_of_another_size_than_the_guest_was_told_bypasses_the_cache() {
        for opening in [READER, WRITER, APPENDER] {
            for others in [Others::Nobody, Others::Somebody, Others::DirectWriter] {
                let opening = Opening {
                    last: Some(NOW),
                    size_told: 11,
                    others,
                    ..opening
                };
                assert_eq!(opening.flags(CachePolicy::Auto), OpenOutFlags::DIRECT_IO, "{opening:?}");
            }
        }
    }

    #[test]
    fn writer_bypasses_the_cache_unless_somebody_may_have_filled_it() {
        for (others, flags) in [
            (Others::Nobody, OpenOutFlags::DIRECT_IO),
            (Others::Somebody, OpenOutFlags::empty()),
            (Others::DirectWriter, OpenOutFlags::DIRECT_IO),
        ] {
            for opening in [WRITER, APPENDER] {
                let opening = Opening { others, ..opening };
                assert_eq!(opening.flags(CachePolicy::Auto), flags, "{opening:?}");
            }
        }
    }

    #[test]
    fn access_is_what_the_flags_of_an_open_say() {
        let (append, truncate) = (libc::O_APPEND, libc::O_TRUNC);
        for (flags, access) in [
            (libc::O_RDONLY, Access::Read),
            (libc::O_RDONLY | append, Access::Read),
            (libc::O_ACCMODE | append, Access::Read),
            (libc::O_WRONLY | truncate, Access::Write),
            (libc::O_RDWR | truncate, Access::ReadWrite),
            (libc::O_WRONLY | append, Access::Append),
            (libc::O_RDWR | append, Access::Append),
        ] {
            assert_eq!(Access::of(flags.cast_unsigned()), access, "{flags:o}");
        }
    }

    #[test]
    fn nobody_fills_a_cache_that_is_bypassed() {
        for last in [None, Some(NOW)] {
            let opening = Opening {
                last,
                others: Others::DirectWriter,
                ..READER
            };
            assert_eq!(opening.flags(CachePolicy::Auto), OpenOutFlags::DIRECT_IO, "{last:?}");
            assert!(!opening.writes_directly(OpenOutFlags::DIRECT_IO));
        }
        assert!(WRITER.writes_directly(OpenOutFlags::DIRECT_IO));
        assert!(!WRITER.writes_directly(OpenOutFlags::empty()));
    }

    /// Such a guest could not map what bypasses its cache.
    #[test]
    fn guest_before_fuse_7_39_writes_through_its_cache() {
        for others in [Others::Nobody, Others::Somebody, Others::DirectWriter] {
            let opening = Opening {
                others,
                maps_uncached: false,
                ..WRITER
            };
            assert_eq!(opening.flags(CachePolicy::Auto), OpenOutFlags::empty(), "{others:?}");
            assert!(!opening.writes_directly(OpenOutFlags::DIRECT_IO));
        }
    }

    #[test]
    fn other_policies_look_at_nothing() {
        for opening in [READER, WRITER, APPENDER] {
            assert_eq!(opening.flags(CachePolicy::Always), OpenOutFlags::KEEP_CACHE);
            let direct = OpenOutFlags::DIRECT_IO | OpenOutFlags::PARALLEL_DIRECT_WRITES;
            assert_eq!(opening.flags(CachePolicy::None), direct);
        }
    }
}
