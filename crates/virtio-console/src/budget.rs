//! How much is done in one call. A guest can add buffers as fast as they are taken, and one chain can be 4 GiB long: the
//! thread must come back to hear that it is to stop.

/// What is left of one call's share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    chains: u32,
    bytes: usize,
}

const BYTES: usize = 1 << 20;

impl Budget {
    /// Twice a ring of this size: what is in it, and what comes in meanwhile.
    pub(crate) fn for_ring(size: u16) -> Self {
        Self {
            chains: 2 * u32::from(size),
            bytes: BYTES,
        }
    }

    pub(crate) fn is_spent(self) -> bool {
        self.chains == 0 || self.bytes == 0
    }

    pub(crate) fn take_chain(&mut self) {
        self.chains = self.chains.saturating_sub(1);
    }

    pub(crate) fn take_bytes(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
    }
}
