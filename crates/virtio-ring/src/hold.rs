//! Used buffers that nobody waits for.

use std::time::Duration;

/// The part of a ring that may be used and not published, so that the driver does not run out of descriptors, and how
/// many chains at the most, so that it does not keep much memory for nothing.
const SHARE: u16 = 4;
const MOST: u16 = 32;

/// Decides when used buffers are published that the driver does nothing with but free: packets it has sent, messages
/// without an answer. A few of them are not worth an interrupt, nor, where there is one for another ring, that the driver
/// looks at theirs too: Linux has a kernel thread do that.
///
/// Time is that since any fixed moment, the same one in all calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    since: Option<Duration>,
}

impl Hold {
    /// How long the driver may miss a used buffer that it does not wait for.
    pub const PATIENCE: Duration = Duration::from_millis(10);

    /// Whether the ring, of `size` descriptors with `unpublished` chains used
    /// ([`Ring::unpublished`](crate::Ring::unpublished)), is to be published at `now`: when 32 chains or a quarter of the
    /// ring wait, or when some of it has waited for [`PATIENCE`](Self::PATIENCE). Half of either is enough when the driver
    /// is interrupted anyway.
    ///
    /// After true the caller publishes.
    pub fn release(&mut self, unpublished: u16, size: u16, now: Duration, interrupted_anyway: bool) -> bool {
        if unpublished == 0 {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let (mut most, mut patience) = (MOST.min(size / SHARE), Self::PATIENCE);
        if interrupted_anyway {
            most /= 2;
            patience /= 2;
        }
        let release = unpublished >= most || now.saturating_sub(since) >= patience;
        if release {
            self.since = None;
        }
        release
    }

    /// When to ask again at the latest; `None` when nothing is held back.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.since.map(|since| since + Self::PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(7);

    fn after(millis: u64) -> Duration {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn nothing_used_is_not_published_and_needs_no_deadline() {
        let mut hold = Hold::default();
        assert!(!hold.release(0, 128, START, true));
        assert_eq!(hold.deadline(), None);
    }

    #[test]
    fn few_chains_of_late_do_not_go_with_an_interrupt() {
        let mut hold = Hold::default();
        assert!(!hold.release(1, 128, START, true));
        assert!(!hold.release(15, 128, after(4), true));
        assert_eq!(hold.deadline(), Some(after(10)));
    }

    #[test]
    fn used_chain_that_has_waited_goes_with_the_next_interrupt() {
        let mut hold = Hold::default();
        assert!(!hold.release(1, 128, START, false));
        assert!(!hold.release(1, 128, after(5), false));
        assert!(hold.release(1, 128, after(5), true));
        assert_eq!(hold.deadline(), None);
    }

    #[test]
    fn eighth_of_the_ring_or_16_chains_go_with_an_interrupt() {
        for (size, enough) in [(16, 2), (64, 8), (128, 16), (256, 16), (32768, 16)] {
            assert!(!Hold::default().release(enough - 1, size, START, true), "{size}");
            assert!(Hold::default().release(enough, size, START, true), "{size}");
        }
    }

    #[test]
    fn used_chain_is_published_when_the_first_has_waited_long_enough() {
        let mut hold = Hold::default();
        assert!(!hold.release(1, 128, START, false));
        assert!(!hold.release(2, 128, after(9), false));
        assert_eq!(hold.deadline(), Some(after(10)));
        assert!(hold.release(3, 128, after(10), false));
        assert!(!hold.release(1, 128, after(11), false), "the next one waits for itself");
        assert_eq!(hold.deadline(), Some(after(21)));
    }

    #[test]
    fn quarter_of_the_ring_or_32_chains_are_published_at_once() {
        for (size, most) in [(8, 2), (64, 16), (128, 32), (256, 32), (32768, 32)] {
            assert!(!Hold::default().release(most - 1, size, START, false), "{size}");
            assert!(Hold::default().release(most, size, START, false), "{size}");
        }
    }

    #[test]
    fn ring_too_small_to_hold_anything_back_is_published_at_once() {
        for size in [1, 2, 4] {
            assert!(Hold::default().release(1, size, START, false), "{size}");
        }
    }

    #[test]
    fn published_elsewhere_the_wait_is_over() {
        let mut hold = Hold::default();
        assert!(!hold.release(1, 128, START, false));
        assert!(!hold.release(0, 128, after(5), false));
        assert!(!hold.release(1, 128, after(12), false));
    }
}
