//! A reply on its way to the guest.

use fuse_wire::{AttrOut, EntryOut, HeaderOut, OpenOut, SizeOut, XattrSizeOut};
use zerocopy::{Immutable, IntoBytes};

use super::{MAX_DATA, Payload, Server};
use crate::errno::{Errno, Result};
use crate::{Attr, Entry, Exchange, Fault, Opened};

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

/// Room for what follows the header of a reply, in bytes.
pub(super) fn payload_room(exchange: &dyn Exchange) -> usize {
    exchange.reply_room().saturating_sub(HeaderOut::LEN)
}

impl Server {
    pub(super) fn reply<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<Payload> {
        self.scratch.reply.put(value);
        Ok(Payload::Buffered)
    }

    pub(super) fn reply_entry(&mut self, entry: &Entry) -> Result<Payload> {
        let (entry_valid, attr_valid) = (self.options.entry_valid, self.options.attr_valid);
        self.reply(&EntryOut::new(
            entry.node.0,
            0,
            entry.attr.to_wire(),
            entry_valid,
            attr_valid,
        ))
    }

    pub(super) fn reply_opened(&mut self, opened: &Opened) -> Result<Payload> {
        self.reply(&OpenOut::new(opened.handle.0, opened.flags))
    }

    pub(super) fn reply_attr(&mut self, attr: Attr) -> Result<Payload> {
        self.reply(&AttrOut::new(attr.to_wire(), self.options.attr_valid))
    }

    pub(super) fn reply_size(&mut self, size: u32) -> Result<Payload> {
        self.reply(&SizeOut {
            size: size.into(),
            padding: 0.into(),
        })
    }

    /// A value of an extended attribute, or with `size` 0 only its length.
    pub(super) fn reply_value(&mut self, size: u32, exchange: &dyn Exchange) -> Result<Payload> {
        let len = self.scratch.value.len();
        if size == 0 {
            let size = u32::try_from(len).unwrap_or(MAX_DATA);
            return self.reply(&XattrSizeOut {
                size: size.into(),
                padding: 0.into(),
            });
        }
        if len > payload_room(exchange).min(size as usize) {
            return Err(Errno::ERANGE);
        }
        self.scratch.reply.append(&mut self.scratch.value);
        Ok(Payload::Buffered)
    }
}
