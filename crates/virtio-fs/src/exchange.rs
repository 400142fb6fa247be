//! One request and the room for its reply, wherever they are.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use rustix::io::ReadWriteFlags;

use crate::durability::Durability;
use crate::errno::{Errno, Result};
use crate::sys;

/// Bytes of a request or a reply could not be reached: the request is shorter than it says, the room for the reply too
/// small, or guest memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request or its reply is not where it should be")]
pub struct Fault;

/// Where data comes from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// From this offset on, in bytes.
    pub at: u64,
    /// The device that the file is on (`st_dev`), where the back-end knows it: then nobody has to ask.
    pub device: Option<u64>,
}

/// Where in a file data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// From this offset on, in bytes.
    At(u64),
    /// Behind all that is in the file by then, whoever writes to it meanwhile (`RWF_APPEND`).
    End,
}

impl Target {
    /// Where that is to `pwritev2(2)`, beside other flags.
    ///
    /// # Errors
    /// EINVAL for the offset that it takes for the file position, which nobody here has to do with.
    pub(crate) fn for_host(self, flags: ReadWriteFlags) -> io::Result<(u64, ReadWriteFlags)> {
        match self {
            Self::At(sys::NO_OFFSET) => Err(sys::einval()),
            Self::At(offset) => Ok((offset, flags)),
            Self::End => Ok((0, flags | ReadWriteFlags::APPEND)),
        }
    }
}

/// One request and the room for its reply.
///
/// The other side may change the request while it is handled, so each byte is read once.
pub trait Exchange {
    /// Length of the request in bytes.
    fn request_len(&self) -> usize;

    /// Room for the reply in bytes.
    fn reply_room(&self) -> usize;

    /// Copies out of the request.
    ///
    /// # Errors
    /// When there are fewer bytes; `buf` is then in no particular state.
    fn read_request(&self, offset: usize, buf: &mut [u8]) -> std::result::Result<(), Fault>;

    /// Copies into the reply.
    ///
    /// # Errors
    /// When there is less room.
    fn write_reply(&mut self, offset: usize, bytes: &[u8]) -> std::result::Result<(), Fault>;

    /// Reads from a file into `len` bytes of the reply and gives how many it were.
    ///
    /// # Errors
    /// As `preadv(2)`; EFAULT when there is less room.
    fn reply_from_file(&mut self, offset: usize, len: usize, from: Source<'_>) -> io::Result<usize>;

    /// Writes `len` bytes of the request to a file and gives how many it were. They are as durable then as was asked for.
    ///
    /// # Errors
    /// As `pwritev2(2)`; EFAULT when there are fewer bytes.
    fn request_to_file(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        to: Target,
        durability: Durability,
    ) -> io::Result<usize>;
}

/// Room for the data of a READ.
pub struct DataOut<'a> {
    exchange: &'a mut dyn Exchange,
    start: usize,
    room: usize,
    filled: usize,
}

impl<'a> DataOut<'a> {
    pub(crate) fn new(exchange: &'a mut dyn Exchange, start: usize, room: usize) -> Self {
        Self {
            exchange,
            start,
            room,
            filled: 0,
        }
    }

    /// How many bytes there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room - self.filled
    }

    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Appends bytes, as many as there is room for.
    ///
    /// # Errors
    /// EIO when the guest's buffer cannot be written.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let bytes = bytes.get(..self.room()).unwrap_or(bytes);
        self.exchange
            .write_reply(self.start + self.filled, bytes)
            .map_err(|Fault| Errno::EIO)?;
        self.filled += bytes.len();
        Ok(())
    }

    /// Appends what a file has from `offset` on, until there is no room or nothing left in the file, straight into the
    /// guest's memory.
    ///
    /// # Errors
    /// As `preadv(2)`, unless something was read before.
    pub fn put_file(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<()> {
        self.put_source(Source {
            file,
            at: offset,
            device: None,
        })
    }

    /// As [`put_file`](Self::put_file), for who may know the file's device.
    ///
    /// # Errors
    /// As [`put_file`](Self::put_file).
    pub fn put_source(&mut self, mut from: Source<'_>) -> Result<()> {
        while self.room() > 0 {
            match self
                .exchange
                .reply_from_file(self.start + self.filled, self.room(), from)
            {
                Ok(0) => break,
                Ok(n) => {
                    self.filled += n.min(self.room());
                    from.at = from.at.saturating_add(n as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.filled > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The data of a WRITE.
pub struct DataIn<'a> {
    exchange: &'a dyn Exchange,
    start: usize,
    len: usize,
    taken: usize,
    appends: bool,
    durability: Durability,
}

impl<'a> DataIn<'a> {
    pub(crate) fn new(exchange: &'a dyn Exchange, start: usize, len: usize) -> Self {
        Self {
            exchange,
            start,
            len,
            taken: 0,
            appends: false,
            durability: Durability::None,
        }
    }

    pub(crate) fn appending(mut self) -> Self {
        self.appends = true;
        self
    }

    pub(crate) fn durable(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How durable the data is to be when the WRITE is answered. [`take_to_file`](Self::take_to_file) sees to it.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether the program that writes appends.
    #[must_use]
    pub fn appends(&self) -> bool {
        self.appends
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.len - self.taken
    }

    /// Fills `buf` with the next bytes.
    ///
    /// # Errors
    /// EIO when fewer are left or the guest's buffer cannot be read.
    pub fn take(&mut self, buf: &mut [u8]) -> Result<()> {
        if buf.len() > self.remaining() {
            return Err(Errno::EIO);
        }
        self.exchange
            .read_request(self.start + self.taken, buf)
            .map_err(|Fault| Errno::EIO)?;
        self.taken += buf.len();
        Ok(())
    }

    /// Writes what is left to a file at `offset`, straight from the guest's memory, and gives how many bytes it were. For a
    /// program that appends, `offset` is only where the guest takes the end for: what it writes goes to the end that the
    /// file has. Only for such a one may the file be open with O_APPEND, where Linux ignores offsets.
    ///
    /// # Errors
    /// As `pwritev2(2)`, unless something was written before.
    pub fn take_to_file(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize> {
        let before = self.taken;
        let mut at = offset;
        while self.remaining() > 0 {
            let to = if self.appends { Target::End } else { Target::At(at) };
            let (start, len) = (self.start + self.taken, self.remaining());
            match self.exchange.request_to_file(start, len, file, to, self.durability) {
                Ok(0) => break,
                Ok(n) => {
                    self.taken += n.min(self.remaining());
                    at = at.saturating_add(n as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.taken > before => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.taken - before)
    }
}

/// An exchange over two buffers of this process: for `/dev/fuse`, for tests, for other transports.
#[derive(Debug)]
pub struct SliceExchange<'a> {
    /// The request.
    pub request: &'a [u8],
    /// Room for the reply.
    pub reply: &'a mut [u8],
}

impl SliceExchange<'_> {
    fn request_part(&self, offset: usize, len: usize) -> std::result::Result<&[u8], Fault> {
        self.request.get(offset..).and_then(|rest| rest.get(..len)).ok_or(Fault)
    }

    fn reply_part(&mut self, offset: usize, len: usize) -> std::result::Result<&mut [u8], Fault> {
        self.reply
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..len))
            .ok_or(Fault)
    }
}

impl Exchange for SliceExchange<'_> {
    fn request_len(&self) -> usize {
        self.request.len()
    }

    fn reply_room(&self) -> usize {
        self.reply.len()
    }

    fn read_request(&self, offset: usize, buf: &mut [u8]) -> std::result::Result<(), Fault> {
        buf.copy_from_slice(self.request_part(offset, buf.len())?);
        Ok(())
    }

    fn write_reply(&mut self, offset: usize, bytes: &[u8]) -> std::result::Result<(), Fault> {
        self.reply_part(offset, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn reply_from_file(&mut self, offset: usize, len: usize, from: Source<'_>) -> io::Result<usize> {
        let part = self.reply_part(offset, len).map_err(|Fault| sys::efault())?;
        Ok(rustix::io::pread(from.file, part, from.at)?)
    }

    fn request_to_file(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        to: Target,
        durability: Durability,
    ) -> io::Result<usize> {
        let part = self.request_part(offset, len).map_err(|Fault| sys::efault())?;
        durability.write(file, |flags| {
            let (at, flags) = to.for_host(flags)?;
            Ok(if flags.is_empty() {
                rustix::io::pwrite(file, part, at)?
            } else {
                rustix::io::pwritev2(file, &[IoSlice::new(part)], at, flags)?
            })
        })
    }
}
