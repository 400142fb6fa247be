//! What a worker's thread waits for: a kick, an alarm, and the descriptors that the worker registers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use virtio_transport::{Interest, Poller, Readiness, Task};
use vmm_sys_util::eventfd::EventFd;

use super::aside::Aside;
use crate::sys;

/// Events taken from the kernel in one call.
const BATCH: usize = 32;
/// What the kick and the alarm are told by among the events. A worker's own tokens have 32 bits.
const KICK: u64 = 1 << 32;
const ALARM: u64 = 2 << 32;

/// Something that a worker's thread was woken for.
pub(super) enum Event {
    /// Another thread wants it to look.
    Kick,
    /// The alarm went off.
    Alarm,
    /// A descriptor of the worker's is ready.
    Ready(u32, Readiness),
}

/// An epoll instance, and the thread for what takes long. Its clones are the same ones.
#[derive(Clone)]
pub(super) struct EpollPoller {
    epoll: Arc<OwnedFd>,
    aside: Arc<Aside>,
}

impl EpollPoller {
    /// One with the kick descriptor in it, for the worker called `name`.
    pub(super) fn new(name: &str, kick: &Arc<EventFd>) -> io::Result<Self> {
        let poller = Self {
            epoll: Arc::new(epoll::create(CreateFlags::CLOEXEC)?),
            aside: Arc::new(Aside::new(format!("{name}-aside"), Arc::clone(kick))),
        };
        poller.add_edge(sys::borrowed(kick), KICK)?;
        Ok(poller)
    }

    pub(super) fn add_alarm(&self, timer: impl AsFd) -> io::Result<()> {
        self.add_edge(timer, ALARM)
    }

    /// Each time that `fd` becomes readable wakes, and nobody has to read it for that.
    fn add_edge(&self, fd: impl AsFd, data: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(&*self.epoll, fd, EventData::new_u64(data), flags)?)
    }

    /// Waits until something happens, for `timeout` at the most.
    pub(super) fn wait(&self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        events.ready = 0;
        let timeout = timeout.map(timespec);
        match epoll::wait(&*self.epoll, &mut events.places[..], timeout.as_ref()) {
            Ok(ready) => events.ready = ready,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

impl Poller for EpollPoller {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&*self.epoll, fd, data(token), flags(interest))?)
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&*self.epoll, fd, data(token), flags(interest))?)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&*self.epoll, fd)?)
    }

    fn closing(&mut self, _fd: BorrowedFd<'_>) {}

    fn run_aside(&mut self, task: Task) -> Result<(), Task> {
        self.aside.run(task)
    }
}

/// Room for the events of one call, and those that came.
pub(super) struct Events {
    places: [epoll::Event; BATCH],
    ready: usize,
}

impl Events {
    pub(super) fn none() -> Self {
        let place = epoll::Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        Self {
            places: [place; BATCH],
            ready: 0,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Event> {
        self.places
            .iter()
            .take(self.ready)
            .map(|&epoll::Event { flags, data }| {
                let data = data.u64();
                match u32::try_from(data) {
                    Ok(token) => Event::Ready(token, readiness(flags)),
                    Err(_) if data == ALARM => Event::Alarm,
                    Err(_) => Event::Kick,
                }
            })
    }
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn data(token: u32) -> EventData {
    EventData::new_u64(u64::from(token))
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN | EventFlags::RDHUP, interest.readable);
    flags.set(EventFlags::OUT, interest.writable);
    flags
}

fn readiness(flags: EventFlags) -> Readiness {
    Readiness {
        readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP),
        writable: flags.contains(EventFlags::OUT),
        hangup: flags.contains(EventFlags::HUP),
        error: flags.contains(EventFlags::ERR),
    }
}
