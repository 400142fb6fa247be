//! A worker that is called by whoever has something for it: its thread, or the vCPU that has just notified.
//!
//! A notification is a vCPU's write to a register. Passed on to another thread it costs two switches of threads with the
//! guest waiting, several times what a short request takes. So a vCPU that finds the worker free does what there is to
//! do itself, as far as it is short, and the guest has its answer when it is entered again. What is long and what is due
//! at some time is for the worker's own thread.
//!
//! A vCPU never waits for the seat. The thread does, for one short pass at the most.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use virtio_transport::Worker;
use vmm_sys_util::eventfd::EventFd;

use super::poller::Events;
use super::turns::{Next, Turns};
use super::wake;

/// What a device's notification register is connected to.
pub(crate) trait Doorbell: Send + Sync {
    /// The driver has made buffers available. False when nobody is there to hear of it.
    fn ring(&self) -> bool;
}

/// A worker's place.
pub(super) struct Seat<W> {
    /// `None` while the device does not run.
    taken: Mutex<Option<Seated<W>>>,
    /// The driver has notified, and who is in the seat may have looked already.
    rung: AtomicBool,
}

struct Seated<W> {
    turns: Turns<W>,
    /// Wakes the worker's thread.
    kick: Arc<EventFd>,
}

impl<W: Worker> Seat<W> {
    pub(super) fn empty() -> Self {
        Self {
            taken: Mutex::new(None),
            rung: AtomicBool::new(false),
        }
    }

    /// A worker sits down that was not told of what the driver has notified of before.
    pub(super) fn put(&self, turns: Turns<W>, kick: Arc<EventFd>) {
        self.rung.store(true, Ordering::SeqCst);
        self.taken.clear_poison();
        if let Ok(mut taken) = self.taken.lock() {
            *taken = Some(Seated { turns, kick });
        }
    }

    /// The worker, unless somebody has panicked while calling it.
    pub(super) fn take(&self) -> Option<Turns<W>> {
        Some(self.taken.lock().ok()?.take()?.turns)
    }

    /// A turn of the worker's thread. `None` when there is no worker any more.
    pub(super) fn turn(&self, events: &Events) -> Option<Next> {
        let mut taken = self.taken.lock().ok()?;
        let notified = self.rung.swap(false, Ordering::SeqCst);
        let next = taken.as_mut()?.turns.turn(events, notified);
        drop(taken);
        Some(if self.rung.load(Ordering::SeqCst) {
            Next::Again
        } else {
            next
        })
    }
}

impl<W: Worker> Doorbell for Seat<W> {
    fn ring(&self) -> bool {
        // Before the attempt to sit down: whoever is there looks at it after having stood up.
        self.rung.store(true, Ordering::SeqCst);
        let mut taken = match self.taken.try_lock() {
            Ok(taken) => taken,
            Err(TryLockError::WouldBlock) => return true,
            Err(TryLockError::Poisoned(_)) => return false,
        };
        let Some(seated) = taken.as_mut() else { return false };
        self.rung.store(false, Ordering::SeqCst);
        let quiet = seated.serve_in_passing();
        let kick = Arc::clone(&seated.kick);
        drop(taken);
        if !quiet {
            self.rung.store(true, Ordering::SeqCst);
        }
        if self.rung.load(Ordering::SeqCst) {
            wake(&kick);
        }
        true
    }
}

impl<W: Worker> Seated<W> {
    /// False when the worker's thread has to go on at once.
    fn serve_in_passing(&mut self) -> bool {
        let done = self.turns.worker.notified_in_passing(&mut self.turns.poller);
        // What is due soon needs the thread, which may be waiting for something later.
        done && self.turns.next() == Next::Wait(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use virtio_transport::Poller;
    use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

    use super::super::poller::EpollPoller;
    use super::super::turns::take_turns;
    use super::*;

    /// Requests that were made, and where they were served.
    #[derive(Default)]
    struct Requests {
        made: AtomicUsize,
        served: AtomicUsize,
        by: Mutex<Vec<ThreadId>>,
    }

    impl Requests {
        fn serve(&self) {
            let made = self.made.load(Ordering::SeqCst);
            if self.served.swap(made, Ordering::SeqCst) != made {
                self.by.lock().unwrap().push(thread::current().id());
            }
        }
    }

    /// Serves requests; `in_passing` is called instead when a vCPU has notified, and tells whether all is done.
    struct Serving {
        requests: Arc<Requests>,
        in_passing: Box<dyn FnMut(&Requests) -> bool + Send>,
    }

    impl Worker for Serving {
        fn notified(&mut self, _poller: &mut dyn Poller) {
            self.requests.serve();
        }

        fn notified_in_passing(&mut self, _poller: &mut dyn Poller) -> bool {
            (self.in_passing)(&self.requests)
        }
    }

    /// A worker in its seat, with its thread.
    struct Running {
        seat: Arc<Seat<Serving>>,
        requests: Arc<Requests>,
        kick: Arc<EventFd>,
        stop: Arc<AtomicBool>,
        thread: thread::JoinHandle<()>,
    }

    impl Running {
        fn new(in_passing: impl FnMut(&Requests) -> bool + Send + 'static) -> Self {
            let requests = Arc::<Requests>::default();
            let kick = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap());
            let poller = EpollPoller::new("test", &kick).unwrap();
            let seat = Arc::new(Seat::empty());
            let worker = Serving {
                requests: Arc::clone(&requests),
                in_passing: Box::new(in_passing),
            };
            seat.put(Turns::new(worker, poller.clone()), Arc::clone(&kick));
            let stop = Arc::new(AtomicBool::new(false));
            let (its, stopped) = (Arc::clone(&seat), Arc::clone(&stop));
            let thread = thread::spawn(move || take_turns(&poller, &stopped, |events| its.turn(events)));
            Self {
                seat,
                requests,
                kick,
                stop,
                thread,
            }
        }

        fn request(&self) -> bool {
            self.requests.made.fetch_add(1, Ordering::SeqCst);
            self.seat.ring()
        }

        fn wait_until_all_is_served(&self) {
            let is_served = || {
                let made = self.requests.made.load(Ordering::SeqCst);
                self.requests.served.load(Ordering::SeqCst) == made
            };
            let patience = std::time::Instant::now() + Duration::from_secs(20);
            while !is_served() {
                assert!(std::time::Instant::now() < patience, "a notification got lost");
                thread::yield_now();
            }
        }

        fn stop(self) -> io::Result<Option<Serving>> {
            self.stop.store(true, Ordering::Release);
            wake(&self.kick);
            self.thread.join().map_err(|_| io::Error::other("panicked"))?;
            Ok(self.seat.take().map(|turns| turns.worker))
        }
    }

    fn all(requests: &Requests) -> bool {
        requests.serve();
        true
    }

    #[test]
    fn notification_of_a_free_worker_is_served_before_ring_returns() {
        let running = Running::new(all);
        while Arc::strong_count(&running.seat) < 2 || running.seat.rung.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        for made in 1..=100 {
            assert!(running.request());
            running.wait_until_all_is_served();
            assert_eq!(running.requests.served.load(Ordering::SeqCst), made);
        }
        let by = running.requests.by.lock().unwrap().clone();
        assert!(by.iter().filter(|id| **id == thread::current().id()).count() > 90);
        assert!(running.stop().unwrap().is_some());
    }

    #[test]
    fn what_is_left_in_passing_is_served_by_the_thread() {
        let running = Running::new(|_| false);
        let its = running.thread.thread().id();
        for _ in 0..100 {
            assert!(running.request());
            running.wait_until_all_is_served();
        }
        assert!(running.requests.by.lock().unwrap().iter().all(|id| *id == its));
        assert!(running.stop().unwrap().is_some());
    }

    #[test]
    fn notification_while_a_vcpu_is_in_the_seat_is_not_waited_for_and_not_lost() {
        let [entered, leave] = [(); 2].map(|()| Arc::new(Barrier::new(2)));
        let (its_entered, its_leave) = (Arc::clone(&entered), Arc::clone(&leave));
        let mut first = true;
        let running = Running::new(move |requests| {
            requests.serve();
            if std::mem::take(&mut first) {
                its_entered.wait();
                its_leave.wait();
            }
            true
        });
        thread::scope(|scope| {
            let sitting = scope.spawn(|| running.request());
            entered.wait();
            // Comes back although the seat is taken, after the one in it has looked.
            assert!(running.request());
            leave.wait();
            assert!(sitting.join().unwrap());
        });
        running.wait_until_all_is_served();
        assert!(running.stop().unwrap().is_some());
    }

    #[test]
    fn notifications_of_four_vcpus_at_once_are_all_served() {
        let mut turn = 0_u32;
        let running = Running::new(move |requests| {
            turn += 1;
            requests.serve();
            !turn.is_multiple_of(3)
        });
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        assert!(running.request());
                    }
                });
            }
        });
        running.wait_until_all_is_served();
        assert_eq!(running.requests.served.load(Ordering::SeqCst), 8000);
        assert!(running.stop().unwrap().is_some());
    }

    #[test]
    fn worker_that_panics_under_a_vcpu_is_lost_and_its_thread_ends() {
        let running = Running::new(|_| panic!("on purpose"));
        let vcpu = thread::scope(|scope| scope.spawn(|| running.request()).join());
        assert!(vcpu.is_err());
        assert!(!running.request(), "nobody is there any more");
        assert!(running.stop().unwrap().is_none());
    }

    #[test]
    fn empty_seat_is_not_rung() {
        assert!(!Seat::<Serving>::empty().ring());
    }
}
