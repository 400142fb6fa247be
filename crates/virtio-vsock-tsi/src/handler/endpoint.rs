//! The host's end of each proxy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use vsock_proto::wire::SocketName;
use vsock_proto::{MAX_TURN_PACKETS, ProxyId};

use super::actions::abort_on_close;
use super::backlog::Backlog;
use super::burst::Burst;
use super::prompt::Prompt;
use crate::backend::{Connection, HostStream, Listener};
use crate::watch::{Interest, Watcher};

/// Receive buffers for the first bytes of a host. Most answers are short, each buffer costs something to look up, and one
/// alone is read into without a list.
const FIRST_APPETITE: usize = 1;
/// A turn has no more.
const MAX_APPETITE: usize = MAX_TURN_PACKETS as usize;

/// A socket, or what stands for one, with what the event loop knows of it.
pub(super) struct Endpoint {
    pub(super) id: ProxyId,
    pub(super) body: Body,
    pub(super) backlog: Backlog,
    /// What `getpeername(2)` says, if the host's name means nothing to the guest.
    pub(super) peer: Option<SocketName>,
    /// Receive buffers that its next bytes are expected to fill.
    pub(super) appetite: usize,
    /// Datagrams that one report of the event loop is expected to stand for.
    pub(super) burst: Burst,
    pub(super) prompt: Prompt,
    /// A connect is under way.
    pub(super) connecting: bool,
    /// To be woken when there is something to read.
    pub(super) reading: bool,
    /// Nothing more can be learnt from the event loop, which would report it for ever.
    pub(super) hung_up: bool,
    /// A host client that is to be told `OK` when the guest has accepted.
    pub(super) greet: bool,
    watched: Option<Interest>,
}

pub(super) enum Body {
    Stream(HostStream),
    Listener(Listener),
    Datagram(OwnedFd),
}

impl Endpoint {
    pub(super) fn new(id: ProxyId, body: Body) -> Endpoint {
        Endpoint {
            id,
            body,
            backlog: Backlog::default(),
            peer: None,
            appetite: FIRST_APPETITE,
            burst: Burst::default(),
            prompt: Prompt::default(),
            connecting: false,
            reading: false,
            hung_up: false,
            greet: false,
            watched: None,
        }
    }

    pub(super) fn connection(id: ProxyId, connection: Connection) -> Endpoint {
        let mut endpoint = Endpoint::new(id, Body::Stream(connection.stream));
        endpoint.peer = connection.peer;
        endpoint.connecting = !connection.established;
        endpoint
    }

    /// Whether it is a stream of something in this process.
    #[inline]
    pub(super) fn is_service(&self) -> bool {
        matches!(self.body, Body::Stream(HostStream::Service(_)))
    }

    /// What an event loop can wait for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.body {
            Body::Stream(stream) => stream.fd(),
            Body::Listener(listener) => Some(listener.socket.as_fd()),
            Body::Datagram(fd) => Some(fd.as_fd()),
        }
    }

    /// The host put something into so many buffers; if it had enough for all that it was given, it may have more.
    #[inline]
    pub(super) fn learn_appetite(&mut self, filled: usize, more: bool) {
        self.appetite = if more {
            (self.appetite * 2).min(MAX_APPETITE)
        } else {
            filled.max(FIRST_APPETITE)
        };
    }

    fn interest(&self) -> Interest {
        if self.connecting {
            return Interest {
                readable: false,
                writable: true,
            };
        }
        match &self.body {
            // Its descriptor tells of both.
            Body::Stream(HostStream::Service(_)) => Interest {
                readable: true,
                writable: false,
            },
            _ => Interest {
                readable: self.reading,
                writable: !self.backlog.is_empty(),
            },
        }
    }

    /// Tells the event loop what changed, with one call at most.
    pub(super) fn sync(&mut self, watcher: &mut dyn Watcher) -> std::io::Result<()> {
        if self.hung_up {
            self.unwatch(watcher);
            return Ok(());
        }
        let wanted = self.interest();
        let Some(fd) = self.fd() else { return Ok(()) };
        let token = self.id.token();
        match self.watched {
            Some(now) if now == wanted => return Ok(()),
            Some(_) => watcher.modify(fd, token, wanted)?,
            None if wanted == Interest::default() => return Ok(()),
            None => watcher.add(fd, token, wanted)?,
        }
        self.watched = Some(wanted);
        Ok(())
    }

    pub(super) fn unwatch(&mut self, watcher: &mut dyn Watcher) {
        if self.watched.take().is_some()
            && let Some(fd) = self.fd()
            && let Err(error) = watcher.remove(fd)
        {
            tracing::debug!(%error, "event loop did not know a socket");
        }
    }

    /// It is closed next.
    pub(super) fn closing(&mut self, watcher: &mut dyn Watcher) {
        match &self.body {
            // A service may have other descriptors of what its own stands for.
            Body::Stream(HostStream::Service(_)) => self.unwatch(watcher),
            Body::Stream(HostStream::Socket(fd)) | Body::Listener(Listener { socket: fd, .. }) | Body::Datagram(fd) => {
                if self.watched.take().is_some() {
                    watcher.closing(fd.as_fd());
                }
            }
        }
    }
}

/// All endpoints, by the slot of their proxy.
#[derive(Default)]
pub(super) struct Endpoints {
    slots: Vec<Option<Endpoint>>,
    changed: Vec<ProxyId>,
    said_refused: bool,
}

impl Endpoints {
    pub(super) fn insert(&mut self, endpoint: Endpoint) {
        let slot = endpoint.id.slot();
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.changed.push(endpoint.id);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(endpoint);
        }
    }

    /// For a change that the event loop may have to hear of.
    pub(super) fn change(&mut self, id: ProxyId) -> Option<&mut Endpoint> {
        self.changed.push(id);
        self.get_mut(id)
    }

    /// Whether the event loop is to wake us when there is something to read.
    pub(super) fn set_reading(&mut self, id: ProxyId, reading: bool) {
        if let Some(endpoint) = self.change(id) {
            endpoint.reading = reading;
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ProxyId) -> Option<&mut Endpoint> {
        self.slots
            .get_mut(id.slot())?
            .as_mut()
            .filter(|endpoint| endpoint.id == id)
    }

    #[inline]
    pub(super) fn get(&self, id: ProxyId) -> Option<&Endpoint> {
        self.slots.get(id.slot())?.as_ref().filter(|endpoint| endpoint.id == id)
    }

    pub(super) fn take(&mut self, id: ProxyId) -> Option<Endpoint> {
        self.slots.get_mut(id.slot())?.take_if(|endpoint| endpoint.id == id)
    }

    /// Those that the host has not taken everything of, and what to wait for.
    pub(super) fn with_backlog(&self) -> impl Iterator<Item = (ProxyId, PollFd<'_>)> {
        let waiting = self
            .slots
            .iter()
            .flatten()
            .filter(|endpoint| !endpoint.backlog.is_empty());
        waiting.filter_map(|endpoint| {
            let room = match &endpoint.body {
                Body::Stream(HostStream::Service(_)) => PollFlags::IN,
                _ => PollFlags::OUT,
            };
            Some((endpoint.id, PollFd::from_borrowed_fd(endpoint.fd()?, room)))
        })
    }

    /// Sockets of streams that took all that was meant for them.
    pub(super) fn flushed_sockets(&self) -> impl Iterator<Item = &OwnedFd> {
        let flushed = self
            .slots
            .iter()
            .flatten()
            .filter(|endpoint| endpoint.backlog.is_empty());
        flushed.filter_map(|endpoint| match &endpoint.body {
            Body::Stream(HostStream::Socket(fd)) => Some(fd),
            _ => None,
        })
    }

    #[inline]
    pub(super) fn next_changed(&mut self) -> Option<ProxyId> {
        self.changed.pop()
    }

    /// The event loop takes no more. A guest can ask for any number of sockets, so the log is told once.
    pub(super) fn refused(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.said_refused, true) {
            tracing::warn!(%error, "event loop refused a socket");
        }
    }

    pub(super) fn unwatch_all(&mut self, watcher: &mut dyn Watcher) {
        for endpoint in self.slots.iter_mut().flatten() {
            endpoint.unwatch(watcher);
        }
    }

    /// Closes all. A host that was to get more sees a reset, for an orderly end would say that it has everything.
    pub(super) fn clear(&mut self) {
        let unflushed = self
            .slots
            .iter()
            .flatten()
            .filter(|endpoint| !endpoint.backlog.is_empty());
        for endpoint in unflushed {
            if let Body::Stream(HostStream::Socket(fd)) = &endpoint.body {
                abort_on_close(fd);
            }
        }
        self.slots.clear();
        self.changed.clear();
    }
}
