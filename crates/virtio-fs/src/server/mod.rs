//! One FUSE message in, one reply out.

mod attributes;
mod dispatch;
mod files;
mod folders;
mod listing;
mod names;
mod policy;
mod reply;

use fuse_wire::{HeaderIn, HeaderOut, InitFlags, InitIn, InitReply, Offer, Request, RequestError, negotiate};
use virtio_ring::RingError;
use zerocopy::FromBytes;

pub(crate) use self::policy::opens_for_change;
use self::reply::{ReplyBuffer, send_header};
use crate::errno::{Errno, Result};
use crate::{Completion, Context, Exchange, Fault, FileSystem, Job, NodeId, Options};

/// The largest READ and WRITE, in bytes: 256 pages, which is what Linux sends at most.
pub(crate) const MAX_DATA: u32 = 1 << 20;

/// The longest message that is looked at, in bytes: the largest WRITE with room for header and arguments.
const MAX_MESSAGE: usize = MAX_DATA as usize + 4096;

/// How much of a request is read at once: header, arguments and a name of usual length.
const FIRST_LOOK: usize = 128;

/// Requests that the guest may have under way in the background.
const MAX_BACKGROUND: u16 = 1024;

/// What the server can do with any back-end. Not ASYNC_DIO: the parts of one append would come in any order.
const OWN_FLAGS: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::HAS_IOCTL_DIR)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::DIRECT_IO_ALLOW_MMAP);

/// What became of a message.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// This many bytes of reply were written; 0 when there is no room for one, or nobody to name in it.
    Replied(u32),
    /// The message has no reply (FORGET): nobody waits for what comes of it.
    Unanswered,
    /// A lock is not free. Keep the exchange and hand it in again later, or end it with [`Server::cancel`].
    Waits {
        /// Which request it is.
        unique: u64,
    },
    /// The reply is due when `job` is done, on whatever thread: then [`finish`](Server::finish) the exchange.
    Later {
        /// Which request it is.
        unique: u64,
        /// What is left of it.
        job: Job,
    },
    /// A waiting request is to end early: [`cancel`](Server::cancel) its exchange. There is no reply to this message.
    Interrupts {
        /// Which request is meant.
        unique: u64,
    },
}

/// What was counted since the server was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Messages handed in.
    pub requests: u64,
    /// Those that broke the protocol: too short, no room for the reply, names that are none, before INIT.
    pub malformed: u64,
    /// Those with an operation that is not known here.
    pub unknown: u64,
    /// Those that a read-only file system refused.
    pub read_only: u64,
    /// Virtqueues that the driver broke.
    pub broken_queues: u64,
}

/// A FUSE server for one mount.
pub struct Server {
    fs: Box<dyn FileSystem>,
    options: Options,
    /// What INIT agreed on; `None` before it and after DESTROY.
    session: Option<InitFlags>,
    arguments: Vec<u8>,
    scratch: Scratch,
    stats: ServerStats,
}

/// Buffers that are reused from request to request.
#[derive(Default)]
struct Scratch {
    reply: ReplyBuffer,
    /// Values of unknown length on their way into `reply`.
    value: Vec<u8>,
}

/// What follows the header of a good reply.
enum Payload {
    /// It is in `Scratch::reply`.
    Buffered,
    /// It is in the exchange already, this many bytes.
    InPlace(usize),
    /// There is no reply to this operation.
    NoReply,
    Waits,
    Later(Job),
    Interrupts(u64),
}

impl From<Completion> for Payload {
    fn from(completion: Completion) -> Self {
        match completion {
            Completion::Done => Self::Buffered,
            Completion::Later(job) => Self::Later(job),
        }
    }
}

impl Server {
    /// Serves `fs`.
    #[must_use]
    pub fn new(fs: Box<dyn FileSystem>) -> Self {
        let options = fs.options();
        Self {
            fs,
            options,
            session: None,
            arguments: Vec::new(),
            scratch: Scratch::default(),
            stats: ServerStats::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.stats
    }

    /// The back-end.
    #[must_use]
    pub fn file_system(&self) -> &dyn FileSystem {
        &*self.fs
    }

    /// The guest is gone: everything that it had open is closed.
    pub fn reset(&mut self) {
        self.session = None;
        self.fs.unmounted();
    }

    /// Handles one message.
    pub fn handle(&mut self, exchange: &mut dyn Exchange) -> Outcome {
        self.stats.requests = self.stats.requests.wrapping_add(1);
        let mut first = [0; FIRST_LOOK];
        let Some((header, first)) = first_look(exchange, &mut first) else {
            // Without a header there is no `unique` that a reply could name.
            self.stats.malformed = self.stats.malformed.wrapping_add(1);
            return Outcome::Replied(0);
        };
        let unique = header.unique.get();
        match self.answer(header, first, exchange) {
            Ok(Payload::Buffered) => Outcome::Replied(self.scratch.reply.send(exchange, unique)),
            Ok(Payload::InPlace(len)) => Outcome::Replied(send_header(exchange, HeaderOut::success(unique, len))),
            Ok(Payload::NoReply) => Outcome::Unanswered,
            Ok(Payload::Waits) => Outcome::Waits { unique },
            Ok(Payload::Later(job)) => Outcome::Later { unique, job },
            Ok(Payload::Interrupts(unique)) => Outcome::Interrupts { unique },
            Err(_) if !header.opcode().has_reply() => Outcome::Unanswered,
            Err(errno) => Outcome::Replied(send_header(exchange, HeaderOut::failure(unique, errno.raw()))),
        }
    }

    /// Ends a request that [waits](Outcome::Waits) and gives the length of the reply.
    pub fn cancel(&mut self, exchange: &mut dyn Exchange, unique: u64) -> u32 {
        send_header(exchange, HeaderOut::failure(unique, libc::EINTR))
    }

    /// Ends a request that was left for [later](Outcome::Later) and gives the length of the reply.
    pub fn finish(&mut self, exchange: &mut dyn Exchange, unique: u64, result: Result<()>) -> u32 {
        let header = match result {
            Ok(()) => HeaderOut::success(unique, 0),
            Err(errno) => HeaderOut::failure(unique, errno.raw()),
        };
        send_header(exchange, header)
    }

    /// `first` is what was read of the request beyond the header.
    fn answer(&mut self, header: &HeaderIn, first: &[u8], exchange: &mut dyn Exchange) -> Result<Payload> {
        let body_len = self.body_len(header, exchange)?;
        let len = Request::arguments_len(header.opcode(), body_len);
        if let Some(arguments) = first.get(..len) {
            return self.answer_arguments(header, arguments, body_len, exchange);
        }
        let mut arguments = std::mem::take(&mut self.arguments);
        let read = read_arguments(exchange, len, first, &mut arguments);
        let done = read
            .map_err(|Fault| self.malformed(Errno::EIO))
            .and_then(|()| self.answer_arguments(header, &arguments, body_len, exchange));
        self.arguments = arguments;
        done
    }

    /// The length of the arguments: what the header says, less header and extensions.
    fn body_len(&mut self, header: &HeaderIn, exchange: &dyn Exchange) -> Result<usize> {
        let len = header.len.get() as usize;
        let body = len
            .checked_sub(HeaderIn::LEN)
            .and_then(|body| body.checked_sub(header.extensions_len()));
        match body {
            Some(body) if len <= exchange.request_len() && len <= MAX_MESSAGE => Ok(body),
            _ => Err(self.malformed(Errno::EINVAL)),
        }
    }

    fn answer_arguments(
        &mut self,
        header: &HeaderIn,
        arguments: &[u8],
        body_len: usize,
        exchange: &mut dyn Exchange,
    ) -> Result<Payload> {
        let opcode = header.opcode();
        let negotiated = self.session.unwrap_or_default();
        let request = Request::parse(opcode, arguments, negotiated).map_err(|error| self.unparsed(error))?;
        if let Request::Init { args, flags2 } = request {
            return self.init(args, flags2, exchange);
        }
        if self.session.is_none() {
            return Err(self.malformed(Errno::EIO));
        }
        let needed = if opcode.has_reply() {
            HeaderOut::LEN + policy::payload_len(&request)
        } else {
            0
        };
        if exchange.reply_room() < needed {
            return Err(self.malformed(Errno::EIO));
        }
        if self.options.read_only && policy::mutates(&request) {
            self.stats.read_only = self.stats.read_only.wrapping_add(1);
            return Err(Errno::EROFS);
        }
        self.scratch.reply.clear();
        self.scratch.value.clear();
        let by = Context {
            uid: header.uid.get(),
            gid: header.gid.get(),
            pid: header.pid.get(),
        };
        self.perform(&by, NodeId(header.nodeid.get()), &request, body_len, exchange)
    }

    /// INIT ends whatever was mounted before: a guest that was killed does not say DESTROY.
    fn init(&mut self, args: &InitIn, flags2: u32, exchange: &dyn Exchange) -> Result<Payload> {
        if exchange.reply_room() < HeaderOut::LEN + fuse_wire::INIT_OUT_LEN {
            return Err(self.malformed(Errno::EIO));
        }
        self.reset();
        self.options = self.fs.options();
        let offer = Offer {
            flags: OWN_FLAGS | self.options.flags,
            max_write: MAX_DATA,
            max_readahead: MAX_DATA,
            max_background: MAX_BACKGROUND,
            time_gran: 1,
        };
        let out = match negotiate(args, flags2, &offer) {
            InitReply::Agreed { flags, out, .. } => {
                self.session = Some(flags);
                self.fs.mounted(flags);
                out
            }
            InitReply::TryOurs(out) => out,
            InitReply::Refused => return Err(self.malformed(Errno::EPROTO)),
        };
        self.scratch.reply.clear();
        self.scratch.reply.put(&out);
        Ok(Payload::Buffered)
    }

    fn unparsed(&mut self, error: RequestError) -> Errno {
        match error {
            RequestError::UnknownOpcode(_) => self.stats.unknown = self.stats.unknown.wrapping_add(1),
            // A guest's program may ask for a name that is too long; that is not its kernel's fault.
            RequestError::TooLong { .. } => {}
            _ => return self.malformed(Errno::from_raw(error.errno())),
        }
        Errno::from_raw(error.errno())
    }

    fn malformed(&mut self, errno: Errno) -> Errno {
        if self.stats.malformed == 0 {
            tracing::warn!("the guest sent a malformed FUSE message; further ones are only counted");
        }
        self.stats.malformed = self.stats.malformed.wrapping_add(1);
        errno
    }

    /// Counted here and not with the queues: they come anew with each reset, and the log is to hear of this once.
    pub(crate) fn queue_broken(&mut self, queue: usize, error: &RingError) {
        if self.stats.broken_queues == 0 {
            tracing::warn!(queue, %error, "virtio-fs queue stopped; further ones are only counted");
        }
        self.stats.broken_queues = self.stats.broken_queues.wrapping_add(1);
    }
}

/// The header, and what was read with it: one access to the other side's memory for most messages.
fn first_look<'a>(exchange: &dyn Exchange, buf: &'a mut [u8; FIRST_LOOK]) -> Option<(&'a HeaderIn, &'a [u8])> {
    let len = exchange.request_len().min(FIRST_LOOK);
    let read = buf.get_mut(..len)?;
    exchange.read_request(0, read).ok()?;
    HeaderIn::ref_from_prefix(read).ok()
}

/// All the arguments, of which the first bytes are known: each byte is read once.
fn read_arguments(
    exchange: &dyn Exchange,
    len: usize,
    first: &[u8],
    into: &mut Vec<u8>,
) -> std::result::Result<(), Fault> {
    into.clear();
    into.extend_from_slice(first);
    into.resize(len, 0);
    let rest = into.get_mut(first.len()..).unwrap_or_default();
    exchange.read_request(HeaderIn::LEN + first.len(), rest)
}
