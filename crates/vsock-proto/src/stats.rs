//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to and any thread may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds `n` with a plain load and store, so only one thread may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds 1; see [`add`](Self::add).
    #[inline]
    pub fn count(&self) {
        self.add(1);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one device, from its creation on.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Stats {
            /// Each counter's name and value.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Packets taken from the driver.
    packets_from_guest,
    /// Packets given to the driver.
    packets_to_guest,
    /// Stream payload from the guest, in bytes.
    bytes_from_guest,
    /// Stream payload to the guest, in bytes.
    bytes_to_guest,
    /// Datagrams from the guest that reached a host socket.
    datagrams_from_guest,
    /// Datagrams to the guest.
    datagrams_to_guest,
    /// Streams that opened, in either direction.
    connections,
    /// Streams that did not: the host or the guest refused or did not answer in time, or a limit was reached. What the policy
    /// denied is not among these, nor what the guest gave up or broke off while the host connected or after it had: a program
    /// that closes its socket was refused nothing.
    connections_refused,
    /// Requests that the policy denied.
    denied,
    /// Requests refused because a limit was reached, those for streams among them.
    over_limit,
    /// Listeners of the guest that were to be published and are not: the host or a limit refused.
    listeners_refused,
    /// RSTs sent.
    resets_sent,
    /// RSTs not sent, for packets that belong to no stream: the guest went on sending such and had no receive buffer.
    resets_dropped,
    /// Times that a stream had data for the guest and no credit.
    credit_stalls,
    /// Packets or chains dropped: header incomplete, or more payload announced than there is.
    dropped_malformed,
    /// Packets dropped: wrong CID or a port that no socket can have.
    dropped_address,
    /// Packets dropped: unknown type or operation.
    dropped_unknown,
    /// Packets dropped or reset: not allowed in the state of their connection, or beyond flow control.
    protocol_violations,
    /// Control messages that were too short or malformed.
    control_malformed,
    /// Datagrams dropped: longer than the driver's buffer or the host's limit.
    datagrams_too_long,
    /// Datagrams dropped: from a peer that the guest never wrote to.
    datagrams_unsolicited,
    /// Datagrams dropped: no socket, no destination, or the host would not take them.
    datagrams_undeliverable,
    /// Receive buffers of the driver that were of no use.
    rx_unusable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_names_each_counter_with_its_value() {
        let stats = Stats::default();
        stats.denied.count();
        stats.bytes_to_guest.add(7);
        let snapshot = stats.snapshot();
        assert!(snapshot.contains(&("denied", 1)) && snapshot.contains(&("bytes_to_guest", 7)));
        assert_eq!(snapshot.iter().map(|(_, n)| n).sum::<u64>(), 8);
    }
}
