//! Receive windows handed out to streams.

use crate::config::Limits;

/// The smallest window that a stream is opened with, in bytes.
const MIN_WINDOW: u32 = 16 << 10;
/// A new stream gets no more than this part of what can be spared, so that the ones after it get something too.
const SHARE: u64 = 8;

/// What was handed out. A window is a promise, so all windows together stay within the limit.
#[derive(Debug, Default)]
pub(super) struct Windows {
    bytes: u64,
    streams: usize,
}

impl Windows {
    /// A window for a new stream, in bytes. The smallest one is kept back for each stream that may still come, as far as
    /// the limit has room for that.
    pub(super) fn take(&mut self, limits: &Limits) -> Option<u32> {
        let left = limits.buffered_bytes.saturating_sub(self.bytes);
        let may_come = u64::try_from(limits.proxies.saturating_sub(self.streams)).unwrap_or(u64::MAX);
        let spare = left.saturating_sub(may_come.saturating_mul(MIN_WINDOW.into()));
        let share = u32::try_from(spare / SHARE).unwrap_or(u32::MAX);
        let window = share
            .saturating_add(MIN_WINDOW)
            .min(limits.window_bytes)
            .max(MIN_WINDOW);
        if u64::from(window) > left {
            return None;
        }
        self.bytes += u64::from(window);
        self.streams += 1;
        Some(window)
    }

    /// A stream has ended that had this window.
    pub(super) fn give_back(&mut self, window: u32) {
        self.bytes = self.bytes.saturating_sub(window.into());
        self.streams = self.streams.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_limits_have_a_window_for_each_proxy_and_full_ones_for_the_first() {
        let limits = Limits::default();
        let mut windows = Windows::default();
        let all: Vec<u32> = std::iter::from_fn(|| windows.take(&limits))
            .take(limits.proxies)
            .collect();
        assert_eq!(all.len(), limits.proxies);
        assert!(all.iter().take(150).all(|&window| window == limits.window_bytes));
        assert!(all.iter().map(|&window| u64::from(window)).sum::<u64>() <= limits.buffered_bytes);
    }

    #[test]
    fn limit_without_room_for_all_gives_the_smallest_window_until_it_is_reached() {
        let limits = Limits {
            buffered_bytes: 3 * u64::from(MIN_WINDOW) + 1,
            ..Limits::default()
        };
        let mut windows = Windows::default();
        let all: Vec<u32> = std::iter::from_fn(|| windows.take(&limits)).collect();
        assert_eq!(all, [MIN_WINDOW; 3]);
        windows.give_back(MIN_WINDOW);
        assert_eq!(windows.take(&limits), Some(MIN_WINDOW));
    }
}
