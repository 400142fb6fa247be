//! A reply on its way to the guest.

use fuse_wire::HeaderOut;
use zerocopy::{Immutable, IntoBytes};

use crate::{Exchange, Fault};

/// A reply that is put together before it is written, so that header and payload go with one access to the other side's
/// memory. Reused from request to request.
#[derive(Default)]
pub(super) struct ReplyBuffer {
    /// Room for the header, and the payload; empty before the first request.
    message: Vec<u8>,
}

impl ReplyBuffer {
    /// No payload.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.message.clear();
        self.message.extend_from_slice(&[0; HeaderOut::LEN]);
    }

    #[inline]
    pub(super) fn put<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.message.extend_from_slice(value.as_bytes());
    }

    pub(super) fn append(&mut self, bytes: &mut Vec<u8>) {
        self.message.append(bytes);
    }

    /// A payload of `len` bytes, to be written to.
    pub(super) fn resized(&mut self, len: usize) -> &mut [u8] {
        self.message.resize(HeaderOut::LEN + len, 0);
        self.message.get_mut(HeaderOut::LEN..).unwrap_or_default()
    }

    /// Only the first `len` bytes of the payload.
    pub(super) fn truncate(&mut self, len: usize) {
        self.message.truncate(HeaderOut::LEN + len);
    }

    /// Writes the reply and gives its length; 0 when not even a header fits.
    pub(super) fn send(&mut self, exchange: &mut dyn Exchange, unique: u64) -> u32 {
        let header = HeaderOut::success(unique, self.message.len().saturating_sub(HeaderOut::LEN));
        if let Some(room) = self.message.first_chunk_mut::<{ HeaderOut::LEN }>() {
            room.copy_from_slice(header.as_bytes());
        }
        match exchange.write_reply(0, &self.message) {
            Ok(()) => header.len.get(),
            Err(Fault) => send_header(exchange, HeaderOut::failure(unique, libc::EIO)),
        }
    }
}

/// Gives the length of the whole reply; 0 when not even a header fits.
pub(super) fn send_header(exchange: &mut dyn Exchange, header: HeaderOut) -> u32 {
    match exchange.write_reply(0, header.as_bytes()) {
        Ok(()) => header.len.get(),
        Err(Fault) => 0,
    }
}
