//! What happens when nothing happens (TSI specification, 13).

use std::time::Duration;

use super::Muxer;
use super::proxy::State;
use crate::ids::ProxyId;

impl Muxer {
    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next, on the caller's clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.table.next_deadline()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(id) = self.table.take_expired(now) {
            self.expired(now, id);
        }
    }

    fn expired(&mut self, now: Duration, id: ProxyId) {
        match self.table.get_mut(id).map(|proxy| &mut proxy.state) {
            // The program gave up, or its kernel never came back.
            Some(State::AwaitRequest) => {
                self.stats.connections_refused.count();
                self.drop_proxy(id, false);
            }
            // Nobody accepts in the guest; a late RESPONSE finds nobody and is reset.
            Some(State::Stream(stream)) if !stream.is_open() => self.drop_proxy(id, true),
            Some(State::Stream(stream)) => {
                // Slow is not stuck.
                if stream.has_progressed() {
                    self.linger(id, now);
                } else {
                    self.reset_stream(id, true);
                }
            }
            _ => {}
        }
    }
}
