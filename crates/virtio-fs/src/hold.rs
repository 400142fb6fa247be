//! Which completions may wait, and for how long.
//!
//! FORGET has no reply, so nobody in the guest waits for it: all that its completion does is to give a buffer back. Shown
//! to the driver together with the next reply, it costs no interrupt of its own. The same goes for its notification:
//! while FORGETs come among requests, as when files are removed, their queue is looked at with every request, and at the
//! latest when a deadline has passed, so the driver need not notify for each.
//!
//! RELEASE is not one of them: what its reply says nobody reads, but Linux lets `close(2)` wait for it on virtio-fs.

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
    /// For the next chain too. The last FORGET came among requests.
    AskedOnceMore,
    /// It need not: the queue is looked at with every request and at the deadline.
    Quiet {
        /// A FORGET came among requests since the last deadline.
        busy: bool,
    },
}

impl Notified {
    /// After a FORGET. `among_requests`: the driver asked for something else since the one before. FORGETs without company,
    /// as of a guest that drops what it has cached, are obeyed as they come: nothing else would make us look.
    pub(crate) fn after_forget(self, among_requests: bool) -> Self {
        match (self, among_requests) {
            (Self::Asked, true) => Self::AskedOnceMore,
            (Self::AskedOnceMore | Self::Quiet { .. }, true) => Self::Quiet { busy: true },
            (Self::Asked | Self::AskedOnceMore, false) => Self::Asked,
            (quiet @ Self::Quiet { .. }, false) => quiet,
        }
    }

    /// After the deadline: one without a FORGET among requests ends the quiet.
    pub(crate) fn after_deadline(self) -> Self {
        match self {
            Self::Quiet { busy: true } => Self::Quiet { busy: false },
            Self::Quiet { busy: false } => Self::Asked,
            asked @ (Self::Asked | Self::AskedOnceMore) => asked,
        }
    }

    pub(crate) fn is_quiet(self) -> bool {
        matches!(self, Self::Quiet { .. })
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
    fn queue_is_quiet_from_the_second_forget_among_requests_to_a_deadline_without_any() {
        let once = Notified::default().after_forget(true);
        assert!(!once.is_quiet());
        assert_eq!(once.after_deadline(), once);
        let busy = once.after_forget(true);
        assert!(busy.is_quiet());
        let still = busy.after_deadline();
        assert!(still.is_quiet());
        assert_eq!(still.after_forget(true), busy);
        assert_eq!(still.after_deadline(), Notified::Asked);
        assert_eq!(Notified::Asked.after_deadline(), Notified::Asked);
    }

    #[test]
    fn forgets_without_company_neither_begin_a_quiet_nor_prolong_it() {
        for asked in [Notified::Asked, Notified::AskedOnceMore] {
            assert_eq!(asked.after_forget(false), Notified::Asked);
        }
        for busy in [true, false] {
            let quiet = Notified::Quiet { busy };
            assert_eq!(quiet.after_forget(false), quiet);
        }
    }
}
