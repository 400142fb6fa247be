//! How much is done in one call. A guest can add buffers as fast as they are taken, and one chain can be 4 GiB long: the
//! thread must come back to hear that it is to stop.

use virtio_ring::Ring;

/// What is left of one call's share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    chains: u32,
    bytes: usize,
    /// What the ring had given back by itself when the call began. Such chains count too.
    malformed: u64,
}

const BYTES: usize = 1 << 20;

impl Budget {
    /// Twice what the ring holds: what is in it, and what comes in meanwhile.
    pub(crate) fn for_ring(ring: &Ring) -> Self {
        Self {
            chains: 2 * u32::from(ring.size()),
            bytes: BYTES,
            malformed: ring.malformed(),
        }
    }

    pub(crate) fn is_spent(self, ring: &Ring) -> bool {
        let malformed = ring.malformed().saturating_sub(self.malformed);
        u64::from(self.chains) <= malformed || self.bytes == 0
    }

    pub(crate) fn take_chain(&mut self) {
        self.chains = self.chains.saturating_sub(1);
    }

    pub(crate) fn take_bytes(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
    }
}
