//! What reaches a machine from outside while it runs: signals, the terminal's size, and the end of its time.
//!
//! A [`Watch`] has one thread for signals and, with a time-out, one for that. Both end with it.

use std::io;
use std::os::raw::c_int;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{Handle as SignalHandle, Signals};

use crate::terminal::Size;

/// Signals that are passed on to the guest's program.
const FORWARDED: [c_int; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
/// A program that ignores its signals is stopped with its machine by this many in a row.
const PATIENCE: u32 = 3;

/// What a machine can be told. `machine::Handle` is one.
pub(crate) trait Guest: Clone + Send + 'static {
    /// Passes a signal on to the program; whether there was a way.
    fn signal(&self, number: u8) -> bool;
    /// Ends the machine as it stands.
    fn stop(&self);
    /// Tells the size of the terminal.
    fn resize(&self, size: Size);
}

/// Why a machine was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its time was over.
    TimedOut(Duration),
    /// Signals told it to end, and its program did not.
    Signal(c_int),
}

/// Passes on what happens until it is dropped.
pub(crate) struct Watch {
    signals: SignalHandle,
    deadline: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    stopped: Reason,
}

/// The first reason counts.
#[derive(Clone, Default)]
struct Reason(Arc<Mutex<Option<Stop>>>);

impl Reason {
    fn set(&self, reason: Stop) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
    }

    fn get(&self) -> Option<Stop> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Begins to pass on. `terminal_size` is asked at the start and whenever the terminal changes.
    pub(crate) fn start<G: Guest>(
        guest: &G,
        timeout: Option<Duration>,
        terminal_size: impl Fn() -> Option<Size> + Send + 'static,
    ) -> io::Result<Self> {
        let signals = Signals::new(FORWARDED.iter().chain([&SIGWINCH]))?;
        let mut watch = Self {
            signals: signals.handle(),
            deadline: None,
            threads: Vec::new(),
            stopped: Reason::default(),
        };
        let reason = watch.stopped.clone();
        watch.spawn("signals", {
            let guest = guest.clone();
            move || pass_signals(signals, &guest, &reason, terminal_size)
        })?;
        if let Some(timeout) = timeout {
            let (ended, ending) = mpsc::channel();
            watch.deadline = Some(ended);
            let (guest, reason) = (guest.clone(), watch.stopped.clone());
            watch.spawn("deadline", move || {
                if ending.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
                    reason.set(Stop::TimedOut(timeout));
                    guest.stop();
                }
            })?;
        }
        Ok(watch)
    }

    /// Why the machine was stopped, if it was from here.
    pub(crate) fn reason(&self) -> Option<Stop> {
        self.stopped.get()
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signals.close();
        self.deadline = None;
        for thread in self.threads.drain(..) {
            // It has printed why if it panicked, and there is nothing left for it to do.
            let _ = thread.join();
        }
    }
}

fn pass_signals<G: Guest>(mut signals: Signals, guest: &G, reason: &Reason, terminal_size: impl Fn() -> Option<Size>) {
    let resize = || terminal_size().into_iter().for_each(|size| guest.resize(size));
    resize();
    let mut patience = PATIENCE;
    for signal in signals.forever() {
        if signal == SIGWINCH {
            resize();
            continue;
        }
        patience = patience.saturating_sub(1);
        let passed_on = u8::try_from(signal).is_ok_and(|number| guest.signal(number));
        if !passed_on || patience == 0 {
            reason.set(Stop::Signal(signal));
            guest.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Event {
        Signal(u8),
        Stop,
        Resize(Size),
    }

    #[derive(Clone)]
    struct Recorder {
        events: Sender<Event>,
        has_program: bool,
    }

    impl Guest for Recorder {
        fn signal(&self, number: u8) -> bool {
            self.events.send(Event::Signal(number)).expect("the test listens");
            self.has_program
        }

        fn stop(&self) {
            self.events.send(Event::Stop).expect("the test listens");
        }

        fn resize(&self, size: Size) {
            self.events.send(Event::Resize(size)).expect("the test listens");
        }
    }

    /// Signals reach every watch of the process, so tests with them take turns.
    static TURNS: Mutex<()> = Mutex::new(());

    const SIZE: Size = Size { columns: 80, rows: 24 };

    #[test]
    fn signals_are_passed_on_and_the_third_stops_the_machine() {
        let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let (events, seen) = mpsc::channel();
        let guest = Recorder {
            events,
            has_program: true,
        };
        let watch = Watch::start(&guest, None, || None).expect("signals can be taken");
        for (signal, number) in [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 1)] {
            assert_eq!(watch.reason(), None);
            raise(signal).expect("a signal");
            assert_eq!(seen.recv(), Ok(Event::Signal(number)));
        }
        assert_eq!(seen.recv(), Ok(Event::Stop));
        assert_eq!(watch.reason(), Some(Stop::Signal(SIGHUP)));
    }

    #[test]
    fn signal_that_cannot_be_passed_on_stops_the_machine() {
        let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let (events, seen) = mpsc::channel();
        let guest = Recorder {
            events,
            has_program: false,
        };
        let watch = Watch::start(&guest, None, || None).expect("signals can be taken");
        raise(SIGTERM).expect("a signal");
        assert_eq!((seen.recv(), seen.recv()), (Ok(Event::Signal(15)), Ok(Event::Stop)));
        assert_eq!(watch.reason(), Some(Stop::Signal(SIGTERM)));
    }

    #[test]
    fn size_is_told_at_the_start_and_when_it_changes() {
        let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let (events, seen) = mpsc::channel();
        let guest = Recorder {
            events,
            has_program: true,
        };
        let _watch = Watch::start(&guest, None, || Some(SIZE)).expect("signals can be taken");
        assert_eq!(seen.recv(), Ok(Event::Resize(SIZE)));
        raise(SIGWINCH).expect("a signal");
        assert_eq!(seen.recv(), Ok(Event::Resize(SIZE)));
    }

    #[test]
    fn machine_whose_time_is_over_is_stopped() {
        let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let (events, seen) = mpsc::channel();
        let guest = Recorder {
            events,
            has_program: true,
        };
        let time = Duration::from_millis(1);
        let watch = Watch::start(&guest, Some(time), || None).expect("signals can be taken");
        assert_eq!(
            (seen.recv(), watch.reason()),
            (Ok(Event::Stop), Some(Stop::TimedOut(time)))
        );
    }

    #[test]
    fn machine_that_ends_in_time_is_not_stopped() {
        let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let (events, seen) = mpsc::channel();
        let guest = Recorder {
            events,
            has_program: true,
        };
        drop(Watch::start(&guest, Some(Duration::from_secs(3600)), || None).expect("signals can be taken"));
        drop(guest);
        assert!(
            seen.recv().is_err(),
            "nothing was passed on, and nobody is left to do so"
        );
    }
}
