//! Wakes a worker's thread in time for what is due later, whoever finds out that it is.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::poller::{EpollPoller, timespec};

/// A timer descriptor, made when it is first needed.
///
/// It is never put off: by the time it goes off, what it was set for may be over, and a look then costs less than a system
/// call each time that a deadline moves. A busy device's deadlines move thousands of times a second.
#[derive(Default)]
pub(super) struct Alarm {
    timer: Option<OwnedFd>,
    set_for: Option<Instant>,
}

impl Alarm {
    /// Whether it goes off at `deadline` or earlier.
    pub(super) fn is_set_by(&self, deadline: Instant) -> bool {
        self.set_for.is_some_and(|set_for| set_for <= deadline)
    }

    /// Goes off at `deadline`.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub(super) fn set(&mut self, deadline: Instant, now: Instant, poller: &EpollPoller) -> io::Result<()> {
        let timer = match &self.timer {
            Some(timer) => timer,
            None => self.timer.insert(new_timer(poller)?),
        };
        // Nothing at all would disarm it.
        let left = deadline.saturating_duration_since(now).max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: timespec(left),
        };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
        self.set_for = Some(deadline);
        Ok(())
    }

    /// It has gone off.
    pub(super) fn went_off(&mut self) {
        self.set_for = None;
    }
}

fn new_timer(poller: &EpollPoller) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    poller.add_alarm(&timer)?;
    Ok(timer)
}
