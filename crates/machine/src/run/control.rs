//! What the threads of a machine and its handles have in common: what is wanted, and how far it is done.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::exit::{Cause, Drivers, Report, VcpuFault};

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
    /// vCPU threads that are running, and those of them that wait for the pause to end.
    running: u32,
    parked: u32,
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
        self.state().end.get_or_insert(end);
        self.changed.notify_all();
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
        state.pause = true;
        self.changed.notify_all();
        while state.pause && state.end.is_none() && state.parked < state.running {
            state = self.wait(state);
        }
    }

    pub(crate) fn resume(&self) {
        self.state().pause = false;
        self.changed.notify_all();
    }

    /// For a vCPU thread that starts.
    pub(crate) fn enter(&self) {
        self.state().running += 1;
    }

    /// For a vCPU thread that ends.
    pub(crate) fn leave(&self) {
        self.state().running -= 1;
        self.changed.notify_all();
    }

    /// For a vCPU thread before each entry: waits while the machine is paused.
    pub(crate) fn next(&self) -> Next {
        let mut state = self.state();
        while state.pause && state.end.is_none() {
            state.parked += 1;
            self.changed.notify_all();
            state = self.wait(state);
            state.parked -= 1;
        }
        if state.end.is_some() { Next::Leave } else { Next::Run }
    }

    /// For the thread in `run`: waits until the vCPUs have to be called back.
    pub(crate) fn wait_for_work(&self) -> Wake {
        let mut state = self.state();
        loop {
            if let Some(end) = &state.end {
                return Wake::End(end.clone());
            }
            if state.pause && state.parked < state.running {
                return Wake::Park;
            }
            state = self.wait(state);
        }
    }

    /// For the thread in `run`, after it has kicked the vCPUs: waits for the next one to park.
    pub(crate) fn wait_for_parking(&self) {
        let state = self.state();
        if state.pause && state.end.is_none() && state.parked < state.running {
            drop(self.wait(state));
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
        assert_eq!(control.next(), Next::Leave);
    }

    #[test]
    fn pause_of_a_machine_without_vcpus_returns_at_once() {
        let control = Control::default();
        control.pause();
        control.resume();
        assert_eq!(control.next(), Next::Run);
    }

    #[test]
    fn pause_waits_for_each_vcpu_and_ends_with_the_machine() {
        let control = Arc::new(Control::default());
        control.enter();
        let pausing = {
            let control = Arc::clone(&control);
            std::thread::spawn(move || control.pause())
        };
        assert_eq!(control.wait_for_work(), Wake::Park);
        control.end(End::Stopped);
        pausing.join().unwrap();
        assert_eq!(
            control.next(),
            Next::Leave,
            "a paused vCPU leaves when the machine ends"
        );
    }
}
