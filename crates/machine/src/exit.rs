//! How a machine ended.

use std::fmt;

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The program ended with this code; 128 and the signal's number when a signal killed it.
    Code(i32),
    /// The guest's init could not start the program.
    NotStarted(NotStarted),
    /// The guest reset itself or powered off without telling a code.
    Reset,
    /// The guest's kernel panicked.
    Panic,
    /// The host stopped the machine through its [`Handle`](crate::Handle).
    Stopped,
    /// The machine could not go on, by no doing of the guest's init.
    Fault(VcpuFault),
}

/// Why the program was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// There is no such program in the guest.
    NotFound,
    /// It is there, but cannot be executed.
    NotExecutable,
    /// The guest could not be set up for it: a mount, the folder, the terminal.
    SetUp,
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "there is no such program in the guest",
            Self::NotExecutable => "the program cannot be executed in the guest",
            Self::SetUp => "the guest could not be set up for the program",
        })
    }
}

/// Why the machine could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VcpuFault {
    /// The guest faulted while handling a fault while handling a fault.
    #[error("vCPU {vcpu} has shut down with a triple fault at {rip:#x}")]
    TripleFault {
        /// Which vCPU.
        vcpu: u32,
        /// The address of the instruction.
        rip: u64,
    },
    /// The processor refused the state that the vCPU was to be entered with.
    #[error("vCPU {vcpu} cannot be entered: hardware reason {reason:#x}")]
    EntryFailed {
        /// Which vCPU.
        vcpu: u32,
        /// The hardware's reason (`kvm_run.fail_entry`).
        reason: u64,
    },
    /// KVM could not go on.
    #[error("KVM has the internal error {suberror} on vCPU {vcpu} at {rip:#x}")]
    Internal {
        /// Which vCPU.
        vcpu: u32,
        /// KVM's number for it (`KVM_INTERNAL_ERROR_EMULATION` is 1).
        suberror: u32,
        /// The address of the instruction.
        rip: u64,
    },
    /// KVM asked for something that this monitor does not do.
    #[error("vCPU {vcpu} has left the guest for an unknown reason: {exit}")]
    Unexpected {
        /// Which vCPU.
        vcpu: u32,
        /// KVM's name for the exit.
        exit: String,
    },
    /// The thread of a vCPU has panicked: a defect of this crate or of a device.
    #[error("the thread of vCPU {vcpu} has panicked")]
    Panicked {
        /// Which vCPU.
        vcpu: u32,
    },
    /// The worker of a device has panicked: a defect of the device. The guest would wait for it for ever.
    #[error("the worker of the device `{device}` has panicked")]
    WorkerPanicked {
        /// Its name in the plan.
        device: String,
    },
    /// `KVM_RUN` itself failed.
    #[error("vCPU {vcpu} cannot be run: {errno}")]
    Run {
        /// Which vCPU.
        vcpu: u32,
        /// The error number, in words.
        errno: String,
    },
}

/// What the guest's init reported over the root share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Code(i32),
    NotStarted(NotStarted),
}

/// What the guest's drivers were doing when it pulled the reset line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drivers {
    /// Their interrupts are unmasked, as only a panic leaves them.
    Live,
    /// An orderly end has masked their interrupts.
    Quiet,
    /// They had not taken any device yet, without which init cannot have run.
    Missing,
}

/// What made the machine stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The guest pulled the reset line.
    Reset {
        drivers: Drivers,
    },
    Stopped,
    Fault(VcpuFault),
}

impl Exit {
    /// Reads the end of a machine from what stopped it and what init had said before.
    pub(crate) fn classify(cause: Cause, report: Option<Report>) -> Self {
        match (cause, report) {
            (Cause::Fault(fault), _) => Self::Fault(fault),
            (Cause::Stopped, _) => Self::Stopped,
            (Cause::Reset { .. }, Some(Report::Code(code))) => Self::Code(code),
            (Cause::Reset { .. }, Some(Report::NotStarted(why))) => Self::NotStarted(why),
            (
                Cause::Reset {
                    drivers: Drivers::Live | Drivers::Missing,
                },
                None,
            ) => Self::Panic,
            (
                Cause::Reset {
                    drivers: Drivers::Quiet,
                },
                None,
            ) => Self::Reset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_from_its_cause_and_the_report() {
        let fault = VcpuFault::TripleFault { vcpu: 0, rip: 0x1000 };
        let code = Some(Report::Code(42));
        let missing = Some(Report::NotStarted(NotStarted::NotFound));
        let reset = |drivers| Cause::Reset { drivers };
        let rows = [
            (reset(Drivers::Quiet), code, Exit::Code(42)),
            (reset(Drivers::Live), code, Exit::Code(42)),
            (reset(Drivers::Quiet), missing, Exit::NotStarted(NotStarted::NotFound)),
            (reset(Drivers::Live), None, Exit::Panic),
            (reset(Drivers::Missing), None, Exit::Panic),
            (reset(Drivers::Quiet), None, Exit::Reset),
            (Cause::Stopped, code, Exit::Stopped),
            (Cause::Fault(fault.clone()), code, Exit::Fault(fault)),
        ];
        for (cause, report, want) in rows {
            assert_eq!(
                Exit::classify(cause.clone(), report),
                want,
                "{cause:?} after {report:?}"
            );
        }
    }
}
