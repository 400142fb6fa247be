//! How the end of a machine becomes the end of the program.

use machine::{Exit, NotStarted};

use crate::OUR_FAILURE;
use crate::watch::Stop;

/// As `timeout` of the GNU core utilities ends.
const TIMED_OUT: u8 = 124;
/// As a shell ends when a program cannot be executed, or is not there.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// As a shell shows a signal.
const SIGNAL_BASE: i32 = 128;

/// The program's status, and what to say about it, if anything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) status: u8,
    pub(crate) message: Option<String>,
}

/// `program` is what was to be run, `stop` why the machine was stopped from outside.
pub(crate) fn ending(exit: Exit, stop: Option<Stop>, program: &str) -> Ending {
    match exit {
        Exit::Code(code) => Ending {
            status: low_byte(code),
            message: None,
        },
        Exit::Reset => Ending {
            status: 0,
            message: None,
        },
        Exit::NotStarted(why) => Ending::said(not_started(why), format!("{program}: {why}")),
        Exit::Panic => Ending::said(
            OUR_FAILURE,
            "the guest's kernel has panicked; without `quiet` it says why: --cmdline-omit quiet",
        ),
        Exit::Stopped => stopped(stop),
        Exit::Fault(fault) => Ending::said(OUR_FAILURE, format!("the machine cannot go on: {fault}")),
    }
}

impl Ending {
    fn said(status: u8, message: impl Into<String>) -> Self {
        Self {
            status,
            message: Some(message.into()),
        }
    }
}

fn not_started(why: NotStarted) -> u8 {
    match why {
        NotStarted::NotFound => NOT_FOUND,
        NotStarted::NotExecutable => NOT_EXECUTABLE,
        NotStarted::SetUp => OUR_FAILURE,
    }
}

fn stopped(stop: Option<Stop>) -> Ending {
    match stop {
        Some(Stop::TimedOut(time)) => Ending::said(
            TIMED_OUT,
            format!("the machine was stopped: its time of {} s was over", time.as_secs()),
        ),
        Some(Stop::Signal(number)) => Ending::said(
            low_byte(SIGNAL_BASE + number),
            format!("the machine was stopped by signal {number}"),
        ),
        None => Ending::said(OUR_FAILURE, "the machine was stopped"),
    }
}

/// What the kernel keeps of a status.
fn low_byte(code: i32) -> u8 {
    code.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use machine::VcpuFault;

    use super::*;

    #[test]
    fn each_end_of_a_machine_has_its_status() {
        let fault = VcpuFault::TripleFault { vcpu: 0, rip: 0 };
        let rows = [
            (Exit::Code(0), None, 0),
            (Exit::Code(42), None, 42),
            (Exit::Code(137), None, 137),
            (Exit::Code(-1), None, 255),
            (Exit::Reset, None, 0),
            (Exit::NotStarted(NotStarted::NotFound), None, 127),
            (Exit::NotStarted(NotStarted::NotExecutable), None, 126),
            (Exit::NotStarted(NotStarted::SetUp), None, 125),
            (Exit::Panic, None, 125),
            (Exit::Fault(fault), None, 125),
            (Exit::Stopped, None, 125),
            (Exit::Stopped, Some(Stop::TimedOut(Duration::from_secs(30))), 124),
            (Exit::Stopped, Some(Stop::Signal(15)), 143),
        ];
        for (exit, stop, status) in rows {
            assert_eq!(
                ending(exit.clone(), stop, "/bin/x").status,
                status,
                "{exit:?} after {stop:?}"
            );
        }
    }

    #[test]
    fn only_the_guests_own_end_says_nothing() {
        assert_eq!(ending(Exit::Code(1), None, "/bin/x").message, None);
        assert_eq!(ending(Exit::Reset, None, "/bin/x").message, None);
        let missing = ending(Exit::NotStarted(NotStarted::NotFound), None, "/bin/x").message;
        assert_eq!(
            missing.as_deref(),
            Some("/bin/x: there is no such program in the guest")
        );
    }
}
