//! What the threads of a machine and its handles have in common: what is wanted, and how far it is done.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exit::{Cause, Drivers, Report, VcpuFault};

/// How long a vCPU that was kicked has to leave the guest before it is kicked again. Once is enough, unless the embedder
/// ignores the signal in that very moment, which drops those that are pending.
const KICK_AGAIN: Duration = Duration::from_millis(100);

/// Shared by the vCPU threads, the thread in `run`, the root share and every handle.
#[derive(Default)]
pub(crate) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    end: Option<End>,
    report: Option<Report>,
    pause: bool,
    /// How often the vCPUs were called back: for each pause, and for the end.
    calls: u64,
    /// The vCPUs whose threads run and do not wait for a pause to end.
    inside: BTreeSet<u32>,
}

impl State {
    /// Whether vCPUs have to park or leave still, and were not let go in between.
    fn awaits(&self, call: u64) -> bool {
        self.calls == call && (self.pause || self.end.is_some()) && !self.inside.is_empty()
    }
}

/// Why the vCPUs stop; what the guest's drivers were doing is asked once they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reset,
    Stopped,
    Fault(VcpuFault),
}

impl End {
    /// `drivers` is asked only where it matters.
    pub(crate) fn cause(self, drivers: impl FnOnce() -> Drivers) -> Cause {
        match self {
            Self::Reset => Cause::Reset { drivers: drivers() },
            Self::Stopped => Cause::Stopped,
            Self::Fault(fault) => Cause::Fault(fault),
        }
    }
}

/// What a vCPU thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Run,
    Leave,
}

/// What the thread in `run` is woken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The vCPUs are to leave the guest and park.
    Park,
    /// The machine ends.
    End(End),
}

impl Control {
    /// Ends the machine; the first end counts.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state();
        if state.end.is_none() {
            state.end = Some(end);
            state.calls += 1;
            self.changed.notify_all();
        }
    }

    /// Keeps what init reported; the first report counts.
    pub(crate) fn report(&self, report: Report) {
        self.state().report.get_or_insert(report);
    }

    pub(crate) fn reported(&self) -> Option<Report> {
        self.state().report
    }

    /// Asks the vCPUs to pause and waits until all have, or the machine ends.
    pub(crate) fn pause(&self) {
        let mut state = self.state();
        if !state.pause && state.end.is_none() {
            state.pause = true;
            state.calls += 1;
            self.changed.notify_all();
        }
        while state.pause && state.end.is_none() && !state.inside.is_empty() {
            state = self.wait(state);
        }
    }

    pub(crate) fn resume(&self) {
        self.state().pause = false;
        self.changed.notify_all();
    }

    /// For a vCPU's thread that starts.
    pub(crate) fn enter(&self, vcpu: u32) {
        self.state().inside.insert(vcpu);
    }

    /// For a vCPU's thread that ends.
    pub(crate) fn leave(&self, vcpu: u32) {
        self.state().inside.remove(&vcpu);
        self.changed.notify_all();
    }

    /// For a vCPU's thread before each entry: waits while the machine is paused.
    pub(crate) fn next(&self, vcpu: u32) -> Next {
        let mut state = self.state();
        let mut parked = false;
        while state.pause && state.end.is_none() {
            parked = true;
            // Only when it parks: each of those that wait wakes up for it.
            if state.inside.remove(&vcpu) {
                self.changed.notify_all();
            }
            state = self.wait(state);
        }
        if state.end.is_some() {
            return Next::Leave;
        }
        if parked {
            state.inside.insert(vcpu);
        }
        Next::Run
    }

    /// For the thread in `run`: waits until the vCPUs have to be called back.
    pub(crate) fn wait_for_work(&self) -> Wake {
        let mut state = self.state();
        loop {
            if let Some(end) = &state.end {
                return Wake::End(end.clone());
            }
            if state.pause && !state.inside.is_empty() {
                return Wake::Park;
            }
            state = self.wait(state);
        }
    }

    /// For the thread in `run`: kicks the vCPUs that have to park or leave, until they have.
    pub(crate) fn call_back(&self, kick: impl Fn(u32)) {
        let mut state = self.state();
        let call = state.calls;
        while state.awaits(call) {
            state.inside.iter().copied().for_each(&kick);
            let waited = self
                .changed
                .wait_timeout_while(state, KICK_AGAIN, |state| state.awaits(call));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    #[test]
    fn first_end_and_first_report_count() {
        let control = Control::default();
        control.end(End::Reset);
        control.end(End::Stopped);
        control.report(Report::Code(1));
        control.report(Report::Code(2));
        assert_eq!(control.wait_for_work(), Wake::End(End::Reset));
        assert_eq!(control.reported(), Some(Report::Code(1)));
        assert_eq!(control.next(0), Next::Leave);
    }

    #[test]
    fn pause_of_a_machine_without_vcpus_returns_at_once() {
        let control = Control::default();
        control.pause();
        control.resume();
        assert_eq!(control.next(0), Next::Run);
    }

    #[test]
    fn pause_waits_for_each_vcpu_and_ends_with_the_machine() {
        let control = Arc::new(Control::default());
        control.enter(0);
        let pausing = {
            let control = Arc::clone(&control);
            thread::spawn(move || control.pause())
        };
        assert_eq!(control.wait_for_work(), Wake::Park);
        control.end(End::Stopped);
        pausing.join().unwrap();
        assert_eq!(
            control.next(0),
            Next::Leave,
            "a paused vCPU leaves when the machine ends"
        );
    }

    #[test]
    fn vcpus_that_are_parked_are_not_kicked() {
        let control = Arc::new(Control::default());
        (0..3).for_each(|vcpu| control.enter(vcpu));
        let pausing = {
            let control = Arc::clone(&control);
            thread::spawn(move || control.pause())
        };
        assert_eq!(control.wait_for_work(), Wake::Park);
        control.leave(1);
        let (kicks, kicked) = channel();
        let parking = Arc::clone(&control);
        control.call_back(|vcpu| {
            kicks.send(vcpu).unwrap();
            let parking = Arc::clone(&parking);
            thread::spawn(move || parking.next(vcpu));
        });
        pausing.join().unwrap();
        drop(kicks);
        assert_eq!(kicked.iter().collect::<BTreeSet<_>>(), [0, 2].into());
        control.end(End::Stopped);
    }

    #[test]
    fn vcpu_that_missed_its_kick_is_kicked_again() {
        let control = Arc::new(Control::default());
        control.enter(0);
        control.end(End::Stopped);
        let (kicks, kicked) = channel();
        let leaving = {
            let control = Arc::clone(&control);
            thread::spawn(move || {
                kicked.iter().take(2).for_each(drop);
                control.leave(0);
            })
        };
        control.call_back(|vcpu| kicks.send(vcpu).unwrap_or_default());
        leaving.join().unwrap();
    }

    #[test]
    fn parked_vcpus_do_not_keep_each_other_awake() {
        let control = Arc::new(Control::default());
        let processor_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        (0..3).for_each(|vcpu| control.enter(vcpu));
        let vcpus = [0, 1, 2].map(|vcpu| {
            let control = Arc::clone(&control);
            thread::spawn(move || {
                while control.next(vcpu) == Next::Run {}
                processor_time()
            })
        });
        control.pause();
        thread::sleep(Duration::from_millis(200));
        control.end(End::Stopped);
        for vcpu in vcpus {
            let used = vcpu.join().unwrap();
            assert!(used < Duration::from_millis(50), "{used:?}");
        }
    }
}
