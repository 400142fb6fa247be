//! Which completions may wait, and for how long.
//!
//! FORGET has no reply, so nobody in the guest waits for it: all that its completion does is to give a buffer back. Shown
//! to the driver together with the next reply, it costs no interrupt of its own. The same goes for its notification:
//! while FORGETs come one after another their queue is looked at with every request, and at the latest when a deadline
//! has passed, so the driver need not notify for each.

use std::time::Duration;

/// How long a completion is held at most, and how often a queue that is not notified for is looked at. Long enough for
/// several requests of a busy guest, short enough for a driver that takes its queue down and waits for what is out.
pub(crate) const HOLD: Duration = Duration::from_millis(3);

/// What has become of one ring in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Elements in the used ring that the driver was not shown and does not wait for.
    pub(crate) held: u16,
    /// Elements that it waits for.
    pub(crate) awaited: u16,
}

impl Finished {
    /// Whether the driver is to be shown all of it now. `size` is that of the queue. `company` means that the driver is
    /// interrupted for something else at this moment, or that the deadline has passed.
    pub(crate) fn is_shown(self, size: u16, company: bool) -> bool {
        self.awaited > 0 || (self.held > 0 && (company || self.held >= (size / 4).max(1)))
    }
}

/// Whether the driver notifies for the high-priority queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Notified {
    /// For the next chain.
    #[default]
    Asked,
    /// It need not: the queue is looked at with every request and at the deadline.
    Quiet {
        /// Something came since the last deadline.
        busy: bool,
    },
}

impl Notified {
    /// After a message that nobody waits for.
    pub(crate) fn after_forget(self) -> Self {
        Self::Quiet { busy: true }
    }

    /// After the deadline: one without a chain ends the quiet.
    pub(crate) fn after_deadline(self) -> Self {
        match self {
            Self::Quiet { busy: true } => Self::Quiet { busy: false },
            Self::Quiet { busy: false } | Self::Asked => Self::Asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_that_nobody_waits_for_are_held_up_to_a_quarter_of_the_ring() {
        let held = |held| Finished { held, awaited: 0 };
        for (size, count, shown) in [
            (1024, 0, false),
            (1024, 1, false),
            (1024, 255, false),
            (1024, 256, true),
            (4, 1, true),
            (1, 1, true),
            (1, 0, false),
        ] {
            assert_eq!(held(count).is_shown(size, false), shown, "{count} of {size}");
            assert_eq!(held(count).is_shown(size, true), count > 0, "{count} of {size}");
        }
    }

    #[test]
    fn completion_that_is_awaited_is_shown_at_once_with_all_before_it() {
        for held in [0, 1, 300] {
            for company in [false, true] {
                assert!(Finished { held, awaited: 1 }.is_shown(1024, company));
            }
        }
    }

    #[test]
    fn queue_is_quiet_from_its_first_forget_until_a_deadline_without_any() {
        let busy = Notified::default().after_forget();
        assert_eq!(busy, Notified::Quiet { busy: true });
        let still = busy.after_deadline();
        assert_eq!(still, Notified::Quiet { busy: false });
        assert_eq!(still.after_forget(), busy);
        assert_eq!(still.after_deadline(), Notified::Asked);
        assert_eq!(Notified::Asked.after_deadline(), Notified::Asked);
    }
}
