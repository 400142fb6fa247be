//! Flow control of one stream, both ways (virtio 1.3, 5.10.6.3; TSI specification, 7.4). Counters wrap at 2^32.

use std::collections::VecDeque;
use std::num::Wrapping;

/// Never more of the host's data in flight than this, whatever a guest announces, in bytes.
const MAX_IN_FLIGHT: u32 = 1 << 20;

/// What a Linux guest charges each queued packet with (6.12), in bytes: it refuses more than `buf_alloc / 576`.
const PACKET_CHARGE: u32 = 576;

/// How far below that number we stay, in packets.
const PACKET_RESERVE: u32 = 32;

/// Linux sends at most 256 KiB ahead whatever we announce, so it must hear of progress well before that, in bytes.
const REPORT_AFTER: u32 = 64 << 10;

/// The driver broke flow control; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation;

/// Towards the guest: what we may send.
#[derive(Debug)]
pub(crate) struct TxCredit {
    tx_cnt: Wrapping<u32>,
    peer_fwd_cnt: Wrapping<u32>,
    peer_buf_alloc: u32,
    /// Where each packet ends that the guest has not consumed whole.
    packet_ends: VecDeque<Wrapping<u32>>,
}

impl TxCredit {
    pub(crate) fn new() -> TxCredit {
        TxCredit {
            tx_cnt: Wrapping(0),
            peer_fwd_cnt: Wrapping(0),
            peer_buf_alloc: 0,
            packet_ends: VecDeque::new(),
        }
    }

    /// Takes what the guest said in any packet.
    pub(crate) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Result<(), Violation> {
        let fwd_cnt = Wrapping(fwd_cnt);
        if fwd_cnt - self.peer_fwd_cnt > self.in_flight() {
            return Err(Violation);
        }
        self.peer_fwd_cnt = fwd_cnt;
        self.peer_buf_alloc = buf_alloc;
        let in_flight = self.in_flight();
        while self
            .packet_ends
            .front()
            .is_some_and(|&end| self.tx_cnt - end >= in_flight)
        {
            self.packet_ends.pop_front();
        }
        Ok(())
    }

    pub(crate) fn peer_buf_alloc(&self) -> u32 {
        self.peer_buf_alloc
    }

    /// Payload bytes that may be sent now.
    pub(crate) fn bytes(&self) -> u32 {
        self.peer_buf_alloc
            .min(MAX_IN_FLIGHT)
            .saturating_sub(self.in_flight().0)
    }

    /// Packets that may be sent now.
    pub(crate) fn packets(&self) -> u32 {
        let held = self.peer_buf_alloc.min(MAX_IN_FLIGHT) / PACKET_CHARGE;
        let ceiling = if held > 2 * PACKET_RESERVE {
            held - PACKET_RESERVE
        } else {
            (held / 2).max(1)
        };
        ceiling.saturating_sub(u32::try_from(self.packet_ends.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.bytes() == 0 || self.packets() == 0
    }

    /// One packet with `len` payload bytes goes out.
    pub(crate) fn sent(&mut self, len: u32) {
        self.tx_cnt += len;
        self.packet_ends.push_back(self.tx_cnt);
    }

    fn in_flight(&self) -> Wrapping<u32> {
        self.tx_cnt - self.peer_fwd_cnt
    }
}

/// From the guest: what it may send, and what the host took of it.
#[derive(Debug)]
pub(crate) struct RxWindow {
    buf_alloc: u32,
    rx_cnt: Wrapping<u32>,
    fwd_cnt: Wrapping<u32>,
    reported: Wrapping<u32>,
}

impl RxWindow {
    pub(crate) fn new(buf_alloc: u32) -> RxWindow {
        RxWindow {
            buf_alloc,
            rx_cnt: Wrapping(0),
            fwd_cnt: Wrapping(0),
            reported: Wrapping(0),
        }
    }

    /// `len` bytes came.
    pub(crate) fn received(&mut self, len: u32) -> Result<(), Violation> {
        if len > self.buf_alloc.saturating_sub(self.unflushed()) {
            return Err(Violation);
        }
        self.rx_cnt += len;
        Ok(())
    }

    /// The host took `len` of them; more than there are counts as all.
    pub(crate) fn flushed(&mut self, len: u32) {
        self.fwd_cnt += len.min(self.unflushed());
    }

    /// Bytes received that the host has not taken.
    pub(crate) fn unflushed(&self) -> u32 {
        (self.rx_cnt - self.fwd_cnt).0
    }

    /// Whether the guest should hear of our progress now. A Linux guest sends no further ahead than its own buffer is
    /// large, `peer_buf_alloc`, whatever we announce.
    pub(crate) fn report_due(&self, peer_buf_alloc: u32) -> bool {
        let window = self.buf_alloc.min(peer_buf_alloc);
        let unreported = (self.fwd_cnt - self.reported).0;
        let window_seen = window.saturating_sub((self.rx_cnt - self.reported).0);
        unreported >= REPORT_AFTER.min(window / 4).max(1)
            || (unreported > 0 && self.unflushed() == 0 && window_seen < window / 2)
    }

    /// `buf_alloc` and `fwd_cnt` for a packet that goes out now.
    pub(crate) fn report(&mut self) -> (u32, u32) {
        self.reported = self.fwd_cnt;
        (self.buf_alloc, self.fwd_cnt.0)
    }

    pub(crate) fn buf_alloc(&self) -> u32 {
        self.buf_alloc
    }

    pub(crate) fn fwd_cnt(&self) -> u32 {
        self.fwd_cnt.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credit(buf_alloc: u32) -> TxCredit {
        let mut credit = TxCredit::new();
        credit.update(buf_alloc, 0).unwrap();
        credit
    }

    #[test]
    fn credit_of_shrunk_buffer_is_zero_not_wrapped() {
        let mut credit = credit(65536);
        credit.sent(40000);
        credit.update(1000, 0).unwrap();
        assert_eq!(credit.bytes(), 0);
    }

    #[test]
    fn credit_of_huge_buffer_is_clamped() {
        assert_eq!(credit(u32::MAX).bytes(), MAX_IN_FLIGHT);
    }

    #[test]
    fn fwd_cnt_backwards_or_beyond_sent_is_a_violation() {
        let mut credit = credit(65536);
        credit.sent(100);
        assert_eq!(credit.update(65536, 101), Err(Violation));
        credit.update(65536, 60).unwrap();
        assert_eq!(credit.update(65536, 59), Err(Violation));
    }

    #[test]
    fn fwd_cnt_across_2_to_32_counts_on() {
        let mut credit = credit(65536);
        for counter in [&mut credit.tx_cnt, &mut credit.peer_fwd_cnt] {
            *counter = Wrapping(u32::MAX - 10);
        }
        credit.sent(100);
        assert_eq!(credit.bytes(), 65536 - 100);
        credit.update(65536, 89).unwrap();
        assert_eq!((credit.bytes(), credit.packet_ends.len()), (65536, 0));
    }

    #[test]
    fn packets_of_default_linux_window_stop_at_423() {
        let mut credit = credit(262_144);
        let mut sent = 0;
        while !credit.is_exhausted() {
            credit.sent(1);
            sent += 1;
        }
        assert_eq!(sent, 262_144 / 576 - 32);
        credit.update(262_144, 10).unwrap();
        assert_eq!(credit.packets(), 10);
    }

    #[test]
    fn window_reports_every_64_kib_and_when_drained() {
        let mut window = RxWindow::new(262_144);
        window.received(65535).unwrap();
        window.flushed(65535);
        assert!(!window.report_due(262_144));
        window.received(1).unwrap();
        window.flushed(1);
        assert!(window.report_due(262_144));
        window.report();
        assert!(!window.report_due(262_144));
    }

    #[test]
    fn window_overrun_by_one_byte_is_a_violation() {
        let mut window = RxWindow::new(1000);
        window.received(1000).unwrap();
        assert_eq!(window.received(1), Err(Violation));
        window.flushed(1);
        window.received(1).unwrap();
    }

    proptest! {
        /// Naive model: 64-bit counters that never wrap.
        #[test]
        fn credit_never_lets_more_in_flight_than_the_peer_allows(
            start: u32,
            steps in proptest::collection::vec((0u32..2000, 0u32..70000, 0u32..300_000), 1..200),
        ) {
            let mut credit = TxCredit::new();
            credit.tx_cnt = Wrapping(start);
            credit.peer_fwd_cnt = Wrapping(start);
            let (mut sent, mut consumed, mut ends) = (0u64, 0u64, Vec::<u64>::new());
            for (consume, want, buf_alloc) in steps {
                consumed += u64::from(consume).min(sent - consumed);
                let fwd = u32::try_from((u64::from(start) + consumed) % (1 << 32)).unwrap();
                prop_assert_eq!(credit.update(buf_alloc, fwd), Ok(()));
                ends.retain(|&end| end > consumed);
                prop_assert_eq!(credit.packet_ends.len(), ends.len());
                let len = want.min(credit.bytes());
                if credit.packets() > 0 && len > 0 {
                    credit.sent(len);
                    sent += u64::from(len);
                    ends.push(sent);
                    prop_assert!(sent - consumed <= u64::from(buf_alloc));
                    prop_assert!(u32::try_from(ends.len()).unwrap() <= (buf_alloc / PACKET_CHARGE).max(1));
                }
            }
        }

        /// A guest that waits for credit gets a report: no stall at any window.
        #[test]
        fn window_report_is_due_whenever_all_is_flushed_and_the_guest_is_out_of_credit(
            window in 1u32..1_000_000, own in 1u32..300_000, chunk in 1u32..70_000,
        ) {
            let mut rx = RxWindow::new(window);
            let limit = window.min(own);
            let mut unreported = 0;
            for _ in 0..100 {
                let len = chunk.min(limit - unreported);
                rx.received(len).unwrap();
                rx.flushed(len);
                unreported += len;
                if rx.report_due(own) {
                    rx.report();
                    unreported = 0;
                }
                prop_assert!(unreported < limit);
            }
        }
    }
}
