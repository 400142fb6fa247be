//! From the program's start to its end: reaping, signals from the host, and power-off asked for from inside.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::program::Pid;
use crate::sys;

const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGTSTP: i32 = 20;
const LAST_SIGNAL: u8 = 64;

/// How long processes have after SIGTERM, and again after SIGKILL, when the VM is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// The signals PID 1 acts on, as a descriptor. BusyBox's `poweroff`, `halt` and `reboot` send SIGUSR2, SIGUSR1 and
/// SIGTERM.
pub(crate) struct Signals(OwnedFd);

impl Signals {
    pub(crate) fn open() -> Result<Self, Fault> {
        sys::signal_descriptor(&[SIGCHLD, SIGTERM, SIGUSR1, SIGUSR2])
            .map(Self)
            .map_err(|error| Fault::set_up(format!("cannot receive signals: {error}")))
    }
}

/// Runs until the program has ended or the VM is to end, and returns the exit code.
pub(crate) fn until_the_end(program: Pid, signals: Signals, mut control: Option<File>) -> u32 {
    let mut ending = Ending::NotAsked;
    loop {
        let ready = sys::wait_readable(signals.0.as_fd(), control.as_ref().map(AsFd::as_fd), ending.time_left());
        if ready.second && !forward_signals(program, &mut control) {
            control = None;
        }
        if ready.first {
            while let Some(signal) = sys::next_signal(&signals.0) {
                if signal != SIGCHLD {
                    ending.ask();
                }
            }
        }
        if let Some(status) = reap(program) {
            return ending.exit_code(status);
        }
        if ending.is_overdue() {
            return 0;
        }
    }
}

/// Reaps every process that has ended. The status is that of the program, if it is among them.
fn reap(program: Pid) -> Option<i32> {
    let mut ended = None;
    while let Some((pid, status)) = sys::reap_one() {
        if pid == program {
            ended = Some(status);
        }
    }
    ended
}

/// False when the host sends no more.
fn forward_signals(program: Pid, control: &mut Option<File>) -> bool {
    let mut numbers = [0; 64];
    let Some(Ok(count @ 1..)) = control.as_mut().map(|port| port.read(&mut numbers)) else {
        return false;
    };
    for number in numbers.iter().take(count) {
        if let Some((target, signal)) = target_of(*number, program) {
            sys::kill(target, signal);
        }
    }
    true
}

/// Whom `kill(2)` is to be called with: the whole group for what a terminal sends to a group.
fn target_of(number: u8, program: Pid) -> Option<(Pid, i32)> {
    if number == 0 || number > LAST_SIGNAL {
        return None;
    }
    let signal = i32::from(number);
    let to_group = matches!(signal, SIGINT | SIGQUIT | SIGTSTP);
    Some((if to_group { -program } else { program }, signal))
}

/// As `$?` of a shell: the code, or 128 and the number of the signal.
fn shell_code(status: i32) -> u32 {
    let signal = status & 0x7f;
    u32::from(if signal == 0 {
        status.to_be_bytes()[2]
    } else {
        128 + (status.to_le_bytes()[0] & 0x7f)
    })
}

fn was_killed(status: i32) -> bool {
    status & 0x7f != 0
}

enum Ending {
    NotAsked,
    Asked { until: Instant },
    Killed { until: Instant },
}

impl Ending {
    fn ask(&mut self) {
        if let Self::NotAsked = self {
            sys::kill(-1, SIGTERM);
            sys::kill(-1, SIGCONT);
            *self = Self::Asked {
                until: Instant::now() + GRACE,
            };
        }
    }

    fn time_left(&self) -> Option<Duration> {
        match self {
            Self::NotAsked => None,
            Self::Asked { until } | Self::Killed { until } => Some(until.saturating_duration_since(Instant::now())),
        }
    }

    /// True when not even SIGKILL has ended the program.
    fn is_overdue(&mut self) -> bool {
        if self.time_left() != Some(Duration::ZERO) {
            return false;
        }
        if let Self::Killed { .. } = self {
            return true;
        }
        sys::kill(-1, SIGKILL);
        *self = Self::Killed {
            until: Instant::now() + GRACE,
        };
        false
    }

    /// A program that was told to end and ended by the signal has not failed: what was asked for has been done.
    fn exit_code(&self, status: i32) -> u32 {
        match self {
            Self::Asked { .. } | Self::Killed { .. } if was_killed(status) => 0,
            _ => shell_code(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_becomes_the_code_of_a_shell() {
        for (status, code) in [
            (0, 0),
            (42 << 8, 42),
            (255 << 8, 255),
            (9, 137),
            (15, 143),
            (0x80 | 11, 139),
        ] {
            assert_eq!(shell_code(status), code, "status {status:#x}");
        }
    }

    #[test]
    fn keyboard_signals_go_to_the_group_and_others_to_the_program() {
        assert_eq!(target_of(2, 40), Some((-40, 2)));
        assert_eq!(target_of(20, 40), Some((-40, 20)));
        assert_eq!(target_of(15, 40), Some((40, 15)));
        assert_eq!(target_of(64, 40), Some((40, 64)));
    }

    #[test]
    fn bytes_that_are_no_signal_are_dropped() {
        assert_eq!(target_of(0, 40), None);
        assert_eq!(target_of(65, 40), None);
        assert_eq!(target_of(255, 40), None);
    }

    #[test]
    fn program_ended_by_an_asked_power_off_has_not_failed() {
        let asked = Ending::Asked { until: Instant::now() };
        assert_eq!(asked.exit_code(15), 0);
        assert_eq!(asked.exit_code(3 << 8), 3);
        assert_eq!(Ending::NotAsked.exit_code(15), 143);
    }
}
