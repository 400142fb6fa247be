//! Listings whose offsets are the numbers of their entries.

use crate::{DirEntry, DirSink, Entry};

/// Lists what stands behind the first `offset` of `all`, until the sink is full. `describe` is given the offset that goes with an
/// entry: what continues after it.
pub(crate) fn push_numbered<'a, T>(
    all: impl IntoIterator<Item = T>,
    offset: u64,
    sink: &mut dyn DirSink,
    describe: impl Fn(T, u64) -> (DirEntry<'a>, Option<Entry>),
) {
    let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
    for (number, item) in all.into_iter().enumerate().skip(skipped) {
        let (dirent, entry) = describe(item, number as u64 + 1);
        if !sink.push(&dirent, entry.as_ref()) {
            break;
        }
    }
}
