//! Requests whose rest is done on another thread.
//!
//! A disk may take many milliseconds to make a file's data durable. Nothing of that needs guest memory or the back-end, so
//! the share goes on meanwhile: a database that commits does not hold up the rest of the guest.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use virtio_ring::Chain;

use crate::errno::{Errno, Result};
use crate::types::Job;

/// Requests at a time. Each keeps a chain of the guest from its ring, and a file open.
const MAX: usize = 16;

/// What is to be run on another thread, or on this one by who has no other.
pub type Task = Box<dyn FnOnce() + Send>;

/// A request that is answered when its task is done.
pub(crate) struct Aside {
    pub(crate) queue: usize,
    pub(crate) unique: u64,
    pub(crate) chain: Chain,
    result: Arc<OnceLock<Result<()>>>,
}

impl Aside {
    /// `None` while its task is not done.
    fn result(&self) -> Option<Result<()>> {
        self.result.get().copied()
    }
}

/// Where a task's result goes. One that is dropped without a result, or panics, has failed.
struct Verdict(Arc<OnceLock<Result<()>>>);

impl Verdict {
    fn is(self, result: Result<()>) {
        // The first one holds, and this is it.
        let _ = self.0.set(result);
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        let _ = self.0.set(Err(Errno::EIO));
    }
}

/// Those that a guest has, and the tasks that were not taken yet.
#[derive(Default)]
pub(crate) struct Asides {
    begun: Vec<Aside>,
    tasks: VecDeque<Task>,
}

impl Asides {
    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.begun.len() >= MAX
    }

    pub(crate) fn begin(&mut self, queue: usize, unique: u64, chain: Chain, job: Job) {
        let result = Arc::new(OnceLock::new());
        let verdict = Verdict(Arc::clone(&result));
        self.tasks.push_back(Box::new(move || verdict.is(job.run())));
        self.begun.push(Aside {
            queue,
            unique,
            chain,
            result,
        });
    }

    pub(crate) fn take_task(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// Takes one that is done, with what came of it.
    pub(crate) fn take_done(&mut self) -> Option<(Aside, Result<()>)> {
        let (index, result) = self
            .begun
            .iter()
            .enumerate()
            .find_map(|(index, aside)| Some((index, aside.result()?)))?;
        Some((self.begun.remove(index), result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(job: Job) -> Asides {
        let mut asides = Asides::default();
        asides.begin(1, 7, Chain::new(), job);
        asides
    }

    #[test]
    fn request_is_done_when_its_task_was_run() {
        for result in [Ok(()), Err(Errno::ENOSPC)] {
            let mut asides = begun(Job::new(move || result));
            assert!(asides.take_done().is_none());
            let task = asides.take_task().unwrap();
            assert!(asides.take_done().is_none());
            task();
            let (aside, found) = asides.take_done().unwrap();
            assert_eq!((aside.queue, aside.unique, found), (1, 7, result));
            assert!(asides.take_done().is_none() && asides.take_task().is_none());
        }
    }

    #[test]
    fn request_whose_task_is_dropped_or_panics_has_failed() {
        let mut asides = begun(Job::new(|| Ok(())));
        drop(asides.take_task());
        assert_eq!(asides.take_done().unwrap().1, Err(Errno::EIO));
        let mut asides = begun(Job::new(|| panic!("on purpose")));
        let task = asides.take_task().unwrap();
        assert!(std::thread::spawn(task).join().is_err());
        assert_eq!(asides.take_done().unwrap().1, Err(Errno::EIO));
    }

    #[test]
    fn tasks_are_taken_in_their_order_and_there_is_an_end_to_their_number() {
        let mut asides = Asides::default();
        for unique in 0..MAX as u64 {
            assert!(!asides.is_full());
            asides.begin(1, unique, Chain::new(), Job::new(|| Ok(())));
        }
        assert!(asides.is_full());
        for unique in 0..MAX as u64 {
            asides.take_task().unwrap()();
            assert_eq!(asides.take_done().unwrap().0.unique, unique);
        }
    }
}
