//! So many a second, and as many at once.

use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A token bucket on a clock that the caller reads.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u32,
    /// In tokens times nanoseconds per second, so that nothing is lost to rounding.
    level: u128,
    filled_at: Duration,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Rate {
        Rate {
            per_second,
            level: Self::full(per_second),
            filled_at: Duration::ZERO,
        }
    }

    fn full(per_second: u32) -> u128 {
        u128::from(per_second) * NANOS_PER_SECOND
    }

    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let gained = now
            .saturating_sub(self.filled_at)
            .as_nanos()
            .saturating_mul(self.per_second.into());
        self.level = self.level.saturating_add(gained).min(Self::full(self.per_second));
        self.filled_at = self.filled_at.max(now);
        match self.level.checked_sub(NANOS_PER_SECOND) {
            Some(level) => {
                self.level = level;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_lets_a_burst_through_and_then_one_for_each_share_of_a_second() {
        let mut rate = Rate::new(4);
        let burst = (0..10).filter(|_| rate.take(Duration::ZERO)).count();
        assert_eq!(burst, 4);
        assert!(!rate.take(Duration::from_millis(249)));
        assert!(rate.take(Duration::from_millis(250)));
        assert!(!rate.take(Duration::from_millis(251)));
        assert_eq!((0..10).filter(|_| rate.take(Duration::from_secs(100))).count(), 4);
    }
}
