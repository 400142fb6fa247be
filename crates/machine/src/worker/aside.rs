//! A second thread for what a worker leaves: it may take as long as a disk does, and the worker has others to serve.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use virtio_transport::Task;
use vmm_sys_util::eventfd::EventFd;

use super::wake;
use crate::sys;

/// The second thread of one worker, made for the first task. Tasks are run one after another, and the worker is woken after
/// each. Dropped, it waits for the one that is being run, and the others are dropped: a driver that resets its device again and
/// again has one such thread at a time.
pub(super) struct Aside {
    name: String,
    kick: Arc<EventFd>,
    running: Mutex<Option<Running>>,
}

struct Running {
    tasks: Sender<Task>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Aside {
    /// One that is called `name` and wakes the worker by way of `kick`.
    pub(super) fn new(name: String, kick: Arc<EventFd>) -> Self {
        Self {
            name,
            kick,
            running: Mutex::new(None),
        }
    }

    /// Runs `task` some time. It comes back if there cannot be a thread for it, or the thread has panicked.
    pub(super) fn run(&self, task: Task) -> Result<(), Task> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            match self.begin() {
                Ok(begun) => *running = Some(begun),
                Err(error) => {
                    tracing::debug!(name = self.name, %error, "there is no second thread; the first does all")
                }
            }
        }
        match running.as_ref() {
            Some(running) => running.tasks.send(task).map_err(|refused| refused.0),
            None => Err(task),
        }
    }

    fn begin(&self) -> io::Result<Running> {
        let (tasks, received) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (kick, stopped) = (Arc::clone(&self.kick), Arc::clone(&stop));
        let thread = Builder::new().name(self.name.clone());
        let run = move || {
            // After those that were not run are dropped: the worker has to answer for them.
            let _wake = WakeAfter(&kick);
            run_all(received, &stopped, &kick);
        };
        let thread = sys::with_signals_blocked(|| thread.spawn(run))?;
        Ok(Running { tasks, stop, thread })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Running { tasks, stop, thread }) = running.take() {
            stop.store(true, Ordering::Release);
            drop(tasks);
            if thread.join().is_err() {
                tracing::error!(name = self.name, "the second thread has panicked");
            }
        }
    }
}

fn run_all(tasks: Receiver<Task>, stop: &AtomicBool, kick: &EventFd) {
    for task in tasks {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let _wake = WakeAfter(kick);
        task();
    }
}

/// The worker is woken after a task that panics too: it has to answer for it.
struct WakeAfter<'a>(&'a EventFd);

impl Drop for WakeAfter<'_> {
    fn drop(&mut self) {
        wake(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;
    use std::time::{Duration, Instant};

    use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

    use super::*;

    fn aside() -> (Aside, Arc<EventFd>) {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap());
        (Aside::new("test".to_owned(), Arc::clone(&kick)), kick)
    }

    fn wait_for_kick(kick: &EventFd) {
        let patience = Instant::now() + Duration::from_secs(20);
        while kick.read().is_err() {
            assert!(Instant::now() < patience, "the worker is not woken");
            thread::yield_now();
        }
    }

    #[test]
    fn task_runs_on_another_thread_and_wakes_the_worker_after_it() {
        let (aside, kick) = aside();
        let entered = Arc::new(Barrier::new(2));
        let its_own = Arc::clone(&entered);
        let here = thread::current().id();
        aside
            .run(Box::new(move || {
                assert_ne!(thread::current().id(), here);
                its_own.wait();
            }))
            .map_err(drop)
            .unwrap();
        assert!(kick.read().is_err(), "it cannot be done yet");
        entered.wait();
        wait_for_kick(&kick);
    }

    #[test]
    fn task_that_panics_wakes_the_worker_and_later_ones_come_back() {
        let (aside, kick) = aside();
        aside.run(Box::new(|| panic!("on purpose"))).map_err(drop).unwrap();
        wait_for_kick(&kick);
        let patience = Instant::now() + Duration::from_secs(20);
        while aside.run(Box::new(|| {})).is_ok() {
            assert!(Instant::now() < patience, "the thread takes tasks still");
            thread::yield_now();
        }
    }

    #[test]
    fn drop_waits_for_the_task_that_runs_and_drops_those_behind_it() {
        let (aside, _kick) = aside();
        let [entered, leave] = [(); 2].map(|()| Arc::new(Barrier::new(2)));
        let (its_entered, its_leave) = (Arc::clone(&entered), Arc::clone(&leave));
        let first = Box::new(move || {
            its_entered.wait();
            its_leave.wait();
        });
        aside.run(first).map_err(drop).unwrap();
        let ran = Arc::new(AtomicBool::new(false));
        let its_own = Arc::clone(&ran);
        aside
            .run(Box::new(move || its_own.store(true, Ordering::Release)))
            .map_err(drop)
            .unwrap();
        entered.wait();
        let running = aside.running.lock().unwrap();
        let stop = Arc::clone(&running.as_ref().unwrap().stop);
        drop(running);
        let dropping = thread::spawn(move || drop(aside));
        while !stop.load(Ordering::Acquire) {
            thread::yield_now();
        }
        assert!(!dropping.is_finished());
        leave.wait();
        dropping.join().unwrap();
        assert!(!ran.load(Ordering::Acquire));
    }
}
