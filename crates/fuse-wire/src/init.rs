//! INIT: which version and which features both sides speak.

use crate::reply::InitOut;
use crate::{InitFlags, InitIn, MAJOR, MINOR};

/// The lowest minor version of the driver that is accepted. It is that of the first Linux with virtio-fs, 5.4.
pub const MIN_MINOR: u32 = 31;

/// The length of the reply to INIT, in bytes.
pub const INIT_OUT_LEN: usize = size_of::<InitOut>();

/// Flags that say how the conversation itself goes. Without them the other side would read other structs.
const FRAMING: InitFlags = InitFlags::INIT_EXT;

/// What the server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Features that the server would like.
    pub flags: InitFlags,
    /// The largest WRITE, in bytes; at least 4096.
    pub max_write: u32,
    /// How far the driver may read ahead, in bytes; the driver's own limit counts too.
    pub max_readahead: u32,
    /// How many requests the driver may have in the background.
    pub max_background: u16,
    /// The granularity of times, in nanoseconds.
    pub time_gran: u32,
}

/// The answer to INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitReply {
    /// Both sides agree.
    Agreed {
        /// The features that both sides have.
        flags: InitFlags,
        /// The lower of both minor versions.
        minor: u32,
        /// What to send.
        out: InitOut,
    },
    /// The driver speaks a later major version: it is to try again with ours. Only the version counts in this reply.
    TryOurs(InitOut),
    /// The driver is too old.
    Refused,
}

/// Answers INIT. `flags2` is 0 where the driver sent none.
#[must_use]
pub fn negotiate(driver: &InitIn, flags2: u32, offer: &Offer) -> InitReply {
    const PAGE: u32 = 4096;
    if driver.major.get() > MAJOR {
        return InitReply::TryOurs(InitOut {
            major: MAJOR.into(),
            minor: MINOR.into(),
            ..InitOut::default()
        });
    }
    if driver.major.get() < MAJOR || driver.minor.get() < MIN_MINOR {
        return InitReply::Refused;
    }
    let minor = driver.minor.get().min(MINOR);
    let driver_flags = driver.all_flags(flags2);
    let flags = driver_flags & (offer.flags | FRAMING);
    // Without MAX_PAGES the driver sends at most 32 pages, whatever max_write says.
    let max_pages = if flags.contains(InitFlags::MAX_PAGES) {
        offer.max_write.div_ceil(PAGE)
    } else {
        0
    };
    let out = InitOut {
        major: MAJOR.into(),
        minor: minor.into(),
        max_readahead: driver.max_readahead.get().min(offer.max_readahead).into(),
        flags: low_half(flags).into(),
        flags2: high_half(flags).into(),
        max_background: offer.max_background.into(),
        congestion_threshold: (offer.max_background / 4 * 3).into(),
        max_write: offer.max_write.max(PAGE).into(),
        time_gran: offer.time_gran.into(),
        max_pages: u16::try_from(max_pages).unwrap_or(u16::MAX).into(),
        ..InitOut::default()
    };
    InitReply::Agreed { flags, minor, out }
}

#[allow(clippy::cast_possible_truncation, reason = "this half is wanted")]
fn low_half(flags: InitFlags) -> u32 {
    flags.bits() as u32
}

#[allow(clippy::cast_possible_truncation, reason = "32 bits are left")]
fn high_half(flags: InitFlags) -> u32 {
    (flags.bits() >> 32) as u32
}
