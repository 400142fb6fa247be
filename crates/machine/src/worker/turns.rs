//! A worker's turns: what happened is told to it, what it is due for is done, what it has ready is published.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use virtio_transport::Worker;

use super::alarm::Alarm;
use super::poller::{EpollPoller, Event, Events};

/// A deadline nearer than this is waited for; a later one has the alarm, which costs nothing while it is set already.
const NEAR: Duration = Duration::from_millis(1);

/// What a worker's thread does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another turn.
    Again,
    /// Waits for something to happen, for so long at the most.
    Wait(Option<Duration>),
}

/// A worker with what it waits for.
pub(super) struct Turns<W> {
    pub(super) worker: W,
    pub(super) poller: EpollPoller,
    alarm: Alarm,
    /// What the worker was due for when it was asked last.
    due: Option<Instant>,
}

impl<W: Worker> Turns<W> {
    pub(super) fn new(worker: W, poller: EpollPoller) -> Self {
        Self {
            worker,
            poller,
            alarm: Alarm::default(),
            due: None,
        }
    }

    /// Tells the worker what happened. `notified` when the driver has notified in a way that is not among the events.
    pub(super) fn turn(&mut self, events: &Events, mut notified: bool) -> Next {
        for event in events.iter() {
            match event {
                Event::Kick => notified = true,
                Event::Alarm => self.alarm.went_off(),
                Event::Ready(token, readiness) => self.worker.ready(token, readiness, &mut self.poller),
            }
        }
        if notified {
            self.worker.notified(&mut self.poller);
        }
        self.do_what_is_due();
        self.worker.flush(&mut self.poller);
        self.next()
    }

    /// The alarm tells when it is time, so that there is no need to look at the clock each time that something else happens.
    fn do_what_is_due(&mut self) {
        let Some(deadline) = self.due.filter(|due| !self.alarm.is_set_by(*due)) else {
            return;
        };
        let now = Instant::now();
        if deadline <= now {
            self.worker.deadline_passed(now, &mut self.poller);
        }
    }

    /// What is to be done until something happens.
    pub(super) fn next(&mut self) -> Next {
        self.due = self.worker.next_deadline();
        match self.due {
            Some(deadline) if !self.alarm.is_set_by(deadline) => self.wait_until(deadline),
            _ => Next::Wait(None),
        }
    }

    fn wait_until(&mut self, deadline: Instant) -> Next {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            Next::Again
        } else if left < NEAR || self.alarm.set(deadline, now, &self.poller).is_err() {
            Next::Wait(Some(left))
        } else {
            Next::Wait(None)
        }
    }
}

/// Takes turns on the worker's own thread until `stop` is set, or `turn` says that there are no more.
pub(super) fn take_turns(poller: &EpollPoller, stop: &AtomicBool, mut turn: impl FnMut(&Events) -> Option<Next>) {
    let mut events = Events::none();
    while let Some(next) = turn(&events) {
        let timeout = match next {
            Next::Again => Some(Duration::ZERO),
            Next::Wait(timeout) => timeout,
        };
        if let Err(error) = poller.wait(timeout, &mut events) {
            return tracing::error!(%error, "cannot wait for events");
        }
        if stop.load(Ordering::Acquire) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use virtio_transport::Poller;
    use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

    use super::*;

    /// Is due at a time, and says when it was called for it.
    #[derive(Default)]
    struct Due {
        at: Option<Instant>,
        called: Option<Instant>,
    }

    impl Worker for Due {
        fn notified(&mut self, _poller: &mut dyn Poller) {}

        fn next_deadline(&self) -> Option<Instant> {
            self.at
        }

        fn deadline_passed(&mut self, now: Instant, _poller: &mut dyn Poller) {
            self.called = Some(now);
            self.at = None;
        }
    }

    fn turns() -> Turns<Due> {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap());
        Turns::new(Due::default(), EpollPoller::new("test", &kick).unwrap())
    }

    #[test]
    fn worker_is_called_when_its_time_has_come_near_or_far() {
        for left in [0, 200, 3_000].map(Duration::from_micros) {
            let mut turns = turns();
            let deadline = Instant::now() + left;
            turns.worker.at = Some(deadline);
            let poller = turns.poller.clone();
            take_turns(&poller, &AtomicBool::new(false), |events| {
                let next = turns.turn(events, false);
                turns.worker.called.is_none().then_some(next)
            });
            assert!(turns.worker.called.is_some_and(|called| called >= deadline), "{left:?}");
        }
    }

    #[test]
    fn alarm_that_is_set_is_not_put_off_and_serves_later_deadlines_too() {
        let mut turns = turns();
        let now = Instant::now();
        turns.worker.at = Some(now + Duration::from_secs(60));
        assert_eq!(turns.next(), Next::Wait(None));
        turns.worker.at = Some(now + Duration::from_secs(90));
        assert_eq!(turns.next(), Next::Wait(None));
        turns.worker.at = None;
        assert_eq!(turns.next(), Next::Wait(None));
    }

    #[test]
    fn near_deadline_is_waited_for_unless_the_alarm_is_before_it() {
        let mut turns = turns();
        let near = Duration::from_micros(900);
        turns.worker.at = Some(Instant::now() + near);
        assert!(matches!(turns.next(), Next::Wait(Some(left)) if left <= near));
        let poller = turns.poller.clone();
        turns.alarm.set(Instant::now(), Instant::now(), &poller).unwrap();
        turns.worker.at = Some(Instant::now() + near);
        assert_eq!(turns.next(), Next::Wait(None));
    }
}
