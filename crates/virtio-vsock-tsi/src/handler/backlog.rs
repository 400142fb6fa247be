//! Bytes of a stream that the host has not taken.

/// A queue of bytes. It is bounded by the stream's window, which the muxer watches.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    start: usize,
    /// Bytes at the front that are ours and not the guest's.
    own: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == self.start
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// `len` fresh bytes at the end, to be filled.
    pub(super) fn grow(&mut self, len: usize) -> &mut [u8] {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let end = self.bytes.len();
        self.bytes.resize(end + len, 0);
        self.bytes.get_mut(end..).unwrap_or_default()
    }

    /// Puts words of our own first; nothing of the guest's is there yet.
    pub(super) fn greet(&mut self, words: &[u8]) {
        self.grow(words.len()).copy_from_slice(words);
        self.own += words.len();
    }

    /// The host took `len` bytes. Returns how many of them were the guest's.
    pub(super) fn consume(&mut self, len: usize) -> usize {
        let len = len.min(self.bytes().len());
        let own = len.min(self.own);
        self.own -= own;
        self.start += len;
        if self.is_empty() {
            self.clear();
        }
        len - own
    }

    /// Drops all, memory too.
    pub(super) fn clear(&mut self) {
        *self = Backlog::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greeting_is_not_counted_as_the_guests() {
        let mut backlog = Backlog::default();
        backlog.greet(b"OK\n");
        backlog.grow(2).copy_from_slice(b"ab");
        assert_eq!((backlog.consume(2), backlog.consume(2), backlog.consume(9)), (0, 1, 1));
        assert!(backlog.is_empty());
    }

    proptest! {
        #[test]
        fn backlog_is_a_queue(steps in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..50), 0usize..60), 0..50)) {
            let (mut backlog, mut model) = (Backlog::default(), VecDeque::new());
            for (bytes, take) in steps {
                backlog.grow(bytes.len()).copy_from_slice(&bytes);
                model.extend(bytes);
                prop_assert_eq!(backlog.consume(take), take.min(model.len()));
                model.drain(..take.min(model.len()));
                prop_assert_eq!(backlog.bytes(), model.make_contiguous() as &[u8]);
            }
        }
    }
}
