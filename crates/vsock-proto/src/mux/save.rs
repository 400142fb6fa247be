//! Taking the state of a muxer; nothing changes by it (TSI specification, 14).

use super::proxy::{Datagram, Listener, Origin, Proxy, State};
use super::unanswered::most_named;
use super::{Muxer, Ticket};
use crate::state::{DatagramState, ListenerState, MuxerState, PeerState, SocketState};
use crate::wire::Family;

impl Muxer {
    /// The state to save, between two inputs and with all actions done. A stream's bytes that its host has not taken are
    /// lost when the muxer does not go on; its caller resets those hosts ([`reset`](Self::reset) says so for each).
    pub fn save(&self) -> MuxerState {
        let mut state = MuxerState {
            next_host_port: self.table.next_host_port(),
            ..MuxerState::default()
        };
        for (key, name) in &self.departed {
            state.peers.push(PeerState::new(*key, name.clone()));
        }
        for proxy in self.table.ids().into_iter().filter_map(|id| self.table.get(id)) {
            self.save_proxy(proxy, &mut state);
        }
        let forgotten = state.peers.len().saturating_sub(most_named(&self.config.limits));
        state.peers.drain(..forgotten);
        let accepts = state.listeners.iter().filter_map(|listener| listener.accept_reply_port);
        let port_of = |id| Some(self.table.get(id)?.key.guest_port);
        state.replies = self.replies.save(&accepts.collect(), port_of);
        state
    }

    fn save_proxy(&self, proxy: &Proxy, state: &mut MuxerState) {
        let port = proxy.key.guest_port;
        match (proxy.origin, &proxy.state) {
            (Origin::Tsi(family), State::Listening(listener)) if listener.host_name.is_some() => {
                state.listeners.push(self.save_listener(port, family, listener));
            }
            (Origin::Tsi(family), State::Datagram(datagram)) => {
                state.datagrams.push(save_datagram(port, family, datagram));
            }
            (Origin::Tsi(_), State::Stream(_) | State::Closed) => {}
            (Origin::Tsi(family), _) => state.sockets.push(SocketState { port, family }),
            _ => state
                .peers
                .extend(proxy.peer.clone().map(|name| PeerState::new(proxy.key, name))),
        }
    }

    fn save_listener(&self, port: u32, family: Family, listener: &Listener) -> ListenerState {
        let waits = |ticket: &Ticket| self.replies.is_open(*ticket);
        ListenerState {
            port,
            family,
            vm_port: listener.vm_port,
            name: listener.guest_name.clone(),
            backlog: u16::try_from(listener.backlog).unwrap_or(u16::MAX),
            unannounced: u16::try_from(listener.unannounced.len()).unwrap_or(u16::MAX),
            accept_reply_port: listener.accept_ticket.filter(waits).map(|ticket| ticket.reply_port),
        }
    }
}

fn save_datagram(port: u32, family: Family, datagram: &Datagram) -> DatagramState {
    DatagramState {
        port,
        family,
        connected: datagram.guest_peer.clone().filter(|_| datagram.host_peer.is_some()),
        destination: datagram.guest_destination.clone(),
    }
}
