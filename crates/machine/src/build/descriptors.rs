//! How many descriptors of the process a share's guest can hold.

/// Files that a guest may have open in one share, at the least and at the most.
const MIN_OPEN_FILES: u64 = 2;
const MAX_OPEN_FILES: u64 = 1 << 16;
/// Descriptors kept for inodes that are not open, at the least and at the most.
const MIN_CACHED: u64 = 1;
const MAX_CACHED: u64 = 64;

/// What one share may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShareDescriptors {
    pub(super) open_files: usize,
    pub(super) cached: usize,
}

impl ShareDescriptors {
    /// An equal part of the half of `limit`, the descriptors that the process may have: a guest must not take the last one from
    /// the machines beside it. A quarter of that is for inodes that are not open, as far as it helps. Not in it are the seven or
    /// so that each share has for itself, and those of files that were closed while they are synced, 16 a share at the most.
    pub(super) fn of_each(limit: u64, shares: usize) -> Self {
        let each = limit / 2 / (shares as u64).max(1);
        let cached = (each / 4).clamp(MIN_CACHED, MAX_CACHED);
        let open_files = each.saturating_sub(cached).clamp(MIN_OPEN_FILES, MAX_OPEN_FILES);
        Self {
            open_files: usize::try_from(open_files).unwrap_or(usize::MAX),
            cached: usize::try_from(cached).unwrap_or(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_hold_half_of_the_descriptors_at_the_most() {
        for limit in [1024, 4096, 1 << 20, u64::MAX] {
            for shares in 1..=115 {
                let ShareDescriptors { open_files, cached } = ShareDescriptors::of_each(limit, shares);
                let all = (open_files + cached) * shares;
                assert!(all as u64 <= limit / 2, "{all} of {limit} for {shares} shares");
            }
        }
    }

    #[test]
    fn share_has_descriptors_to_work_with_and_no_more_than_help() {
        let rows = [
            (1024, 1, 448, 64),
            (1024, 16, 24, 8),
            (1024, 115, 3, 1),
            (64, 115, 2, 1),
            (0, 0, 2, 1),
            (u64::MAX, 1, 1 << 16, 64),
        ];
        for (limit, shares, open_files, cached) in rows {
            let want = ShareDescriptors { open_files, cached };
            assert_eq!(ShareDescriptors::of_each(limit, shares), want, "{limit} for {shares}");
        }
    }
}
