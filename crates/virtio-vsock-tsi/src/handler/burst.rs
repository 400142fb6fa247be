//! How often a datagram socket is asked before the event loop is.
//!
//! Only a call that finds nothing tells that there is nothing more, and one such call for each datagram is dear where
//! datagrams come one at a time: questions and answers. The event loop reports again what is left, so nothing is lost by
//! stopping early; but a pass for each datagram is dearer still where many come at once. So the socket's past decides.

/// After so many reports that stood for as many datagrams as expected, the socket is read until it is empty: there may
/// have been more each time. What that costs at most is one call in vain for so many reports.
const PROBE_AFTER: u32 = 8;

/// What to expect when the event loop has reported a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Burst {
    /// Datagrams that a report stands for, by experience.
    expected: u32,
    /// Datagrams since the last report.
    got: u32,
    /// Reports one after the other that stood for `expected` datagrams, or more.
    met: u32,
}

impl Default for Burst {
    fn default() -> Burst {
        Burst {
            expected: 1,
            got: 0,
            met: 0,
        }
    }
}

impl Burst {
    /// A datagram came. True when the socket is to be asked for another one before the event loop is.
    pub(super) fn got(&mut self) -> bool {
        self.got = self.got.saturating_add(1);
        if self.got < self.expected || self.met >= PROBE_AFTER {
            return true;
        }
        self.got = 0;
        self.met += 1;
        false
    }

    /// The socket was asked and had nothing.
    pub(super) fn ended(&mut self) {
        *self = Burst {
            expected: self.got.max(1),
            ..Burst::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports that stand for `len` datagrams each, as long as there are any; the calls to the socket.
    fn calls(burst: &mut Burst, len: u32, total: u32) -> u32 {
        let (mut left, mut calls) = (total, 0);
        while left > 0 {
            let mut here = len.min(left);
            loop {
                calls += 1;
                if here == 0 {
                    burst.ended();
                    break;
                }
                here -= 1;
                left -= 1;
                if !burst.got() {
                    // The event loop reports what is left here with what comes next.
                    break;
                }
            }
        }
        calls
    }

    #[test]
    fn answers_one_at_a_time_cost_a_call_in_vain_only_for_each_probe() {
        let mut burst = Burst::default();
        let vain = calls(&mut burst, 1, 900) - 900;
        assert_eq!(vain, 100);
    }

    #[test]
    fn many_at_once_are_read_at_once_after_a_probe() {
        let mut burst = Burst::default();
        for _ in 0..PROBE_AFTER {
            assert!(!burst.got(), "not known yet");
        }
        for _ in 0..20 {
            assert!(burst.got());
        }
        burst.ended();
        let answers: Vec<bool> = (0..40).map(|_| burst.got()).collect();
        let stops: Vec<usize> = (0..40).filter(|&at| !answers[at]).collect();
        assert_eq!(stops, [19, 39], "twenty for a report, and no call in vain");
    }

    #[test]
    fn burst_that_is_over_is_forgotten_with_one_call_in_vain() {
        let mut burst = Burst {
            expected: 20,
            got: 0,
            met: 3,
        };
        assert!(burst.got());
        burst.ended();
        assert_eq!(burst, Burst::default());
        assert!(!burst.got());
    }

    #[test]
    fn report_of_nothing_expects_one_the_next_time() {
        let mut burst = Burst::default();
        burst.ended();
        assert_eq!(burst, Burst::default());
    }

    #[test]
    fn flood_that_never_ends_is_read_on_for_ever() {
        let mut burst = Burst {
            expected: u32::MAX,
            got: u32::MAX,
            met: PROBE_AFTER,
        };
        assert!(burst.got() && burst.got());
    }
}
