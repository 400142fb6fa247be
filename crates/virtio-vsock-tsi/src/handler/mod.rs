//! Queues, sockets and the muxer brought together.

mod actions;
mod backlog;
mod burst;
mod endpoint;
mod events;
mod finish;
mod prompt;
mod routes;
mod rx;
mod services;
mod snapshot;
mod train;
mod transport_reset;
mod tx;
mod update_to_come;

use std::sync::Arc;
use std::time::Duration;

use virtio_ring::{Hold, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;
use vsock_proto::{Muxer, ProxyId, Stats};

use crate::backend::{Backend, DatagramService, HostSockets, RouteListener};
use crate::watch::Watcher;

use endpoint::Endpoints;
use routes::Handshake;
use rx::RxPath;
use services::DatagramServices;
use train::Train;
use transport_reset::TransportReset;
use update_to_come::UpdateToCome;

/// After so many rounds of the queues the event loop gets its turn, however busy the driver is.
const MAX_ROUNDS: usize = 16;

/// Bytes that are moved at once where they cannot go straight from one side to the other.
const SCRATCH_LEN: usize = 64 << 10;

/// How long no connection is accepted after the host ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The three queues of the device (virtio 1.3, 5.10.2).
#[derive(Debug)]
pub struct Queues {
    /// To the driver.
    pub rx: Ring,
    /// From the driver.
    pub tx: Ring,
    /// Events to the driver.
    pub event: Ring,
}

/// What became of one call of [`Handler::serve`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The driver is to be interrupted.
    pub interrupt: bool,
    /// There is more to do: call again soon.
    pub again: bool,
}

/// The device without a transport: it takes queues, guest memory and an event loop as arguments and starts no thread.
///
/// `now` is time since any fixed moment, the same one in all calls.
pub struct Handler<B = HostSockets> {
    mux: Muxer,
    backend: B,
    endpoints: Endpoints,
    rx: RxPath,
    /// Boxed: it is taken out and put back with each pass.
    train: Option<Box<Train>>,
    /// The driver only frees what it has sent.
    sent: Hold,
    update_to_come: UpdateToCome,
    scratch: Vec<u8>,
    datagram_services: DatagramServices,
    routes: Vec<RouteListener>,
    handshakes: Vec<Option<Handshake>>,
    /// When listeners that ran into a lack of descriptors are tried again.
    accept_again: Option<Duration>,
    /// Those of the guest's among them; routes are all tried again.
    paused_listeners: Vec<ProxyId>,
    transport_reset: TransportReset,
    said_not_published: bool,
}

impl<B: Backend> Handler<B> {
    /// A handler without connections.
    pub fn new(mux: Muxer, backend: B) -> Handler<B> {
        Handler {
            mux,
            backend,
            endpoints: Endpoints::default(),
            rx: RxPath::default(),
            train: None,
            sent: Hold::default(),
            update_to_come: UpdateToCome::default(),
            scratch: Vec::new(),
            datagram_services: DatagramServices::default(),
            routes: Vec::new(),
            handshakes: Vec::new(),
            accept_again: None,
            paused_listeners: Vec::new(),
            transport_reset: TransportReset::None,
            said_not_published: false,
        }
    }

    /// Serves one port for plain datagrams; the muxer's configuration names it too.
    #[must_use]
    pub fn with_datagram_service(mut self, port: u32, service: Box<dyn DatagramService>) -> Handler<B> {
        self.datagram_services.insert(port, service);
        self
    }

    pub(crate) fn with_routes(mut self, routes: Vec<RouteListener>) -> Handler<B> {
        self.routes = routes;
        self
    }

    /// The counters, to be read at any time from anywhere.
    pub fn stats(&self) -> &Arc<Stats> {
        self.mux.stats()
    }

    /// The connections.
    pub fn muxer(&self) -> &Muxer {
        &self.mux
    }

    /// Sends the guest the host's clock, in nanoseconds since 1970, at the next [`serve`](Self::serve).
    pub fn send_time(&mut self, unix_nanos: u64) {
        self.mux.send_time(unix_nanos);
    }

    /// Tells the driver, at the next [`serve`](Self::serve), that all its connections are gone (virtio 1.3, 5.10.6.7). It is given
    /// nothing before it has posted the event's buffer again; then the streams that it knew end here too. Listeners and datagram
    /// sockets stay.
    pub fn transport_reset(&mut self) {
        // A driver that was told and is not done has had nothing since.
        if self.transport_reset.is_over() {
            self.transport_reset = TransportReset::Due;
        }
    }

    /// When [`deadline_passed`](Self::deadline_passed) is to be called next.
    pub fn next_deadline(&self) -> Option<Duration> {
        let handshakes = self.handshakes.iter().flatten().map(|handshake| handshake.deadline);
        self.mux
            .next_deadline()
            .into_iter()
            .chain(self.accept_again)
            .chain(self.sent.deadline())
            .chain(self.update_to_come.deadline())
            .chain(handshakes)
            .min()
    }

    /// Moves what can be moved, both ways. To be called when the driver has made buffers available, and after each
    /// batch of events.
    ///
    /// # Errors
    /// When a ring is broken: the device needs a reset.
    pub fn serve<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        queues: &mut Queues,
        mem: &M,
        watcher: &mut dyn Watcher,
    ) -> Result<Served, RingError> {
        let mem = &Nearby::new(mem);
        let mut served = Served::default();
        for round in 1.. {
            queues.tx.disable_notification(mem)?;
            let tx_left = self.drain_tx(now, &mut queues.tx, mem, watcher)?;
            if !tx_left && self.transport_reset.ends_streams() {
                self.mux.transport_reset();
                self.run_actions(now, watcher);
            }
            let event_left = self.transport_reset.turn(&mut queues.event, mem)?;
            let rx_left = self.transport_reset.is_over() && self.pump_rx(now, &mut queues.rx, mem, watcher)?;
            self.sync(now, watcher);
            served.interrupt |= queues.rx.publish(mem)? | queues.event.publish(mem)?;
            served.interrupt |= self.publish_sent(now, &mut queues.tx, mem, served.interrupt)?;
            let gave_data = std::mem::take(&mut self.rx.gave_data);
            let skip = self.update_to_come.after_a_turn(now, gave_data);
            served.again = tx_left | rx_left | event_left | queues.tx.enable_notification_after(mem, skip)?;
            if !served.again || round == MAX_ROUNDS {
                break;
            }
        }
        Ok(served)
    }

    fn publish_sent<M: GuestMemoryBackend>(
        &mut self,
        now: Duration,
        tx: &mut Ring,
        mem: &Nearby<'_, M>,
        interrupted_anyway: bool,
    ) -> Result<bool, RingError> {
        let release = self.sent.release(tx.unpublished(), tx.size(), now, interrupted_anyway);
        if release { tx.publish(mem) } else { Ok(false) }
    }

    /// The driver reset the device: all connections end. The set-up stays, and other queues may follow. For an event loop that
    /// goes on there is [`stop`](Self::stop): it would keep the doorbells of services.
    pub fn reset(&mut self) {
        self.mux.reset();
        while self.mux.poll_action().is_some() {}
        self.endpoints.clear();
        self.rx = RxPath::default();
        self.sent = Hold::default();
        self.update_to_come = UpdateToCome::default();
        self.handshakes.clear();
        self.paused_listeners.clear();
        self.accept_again = None;
        self.transport_reset = TransportReset::None;
    }

    fn scratch(scratch: &mut Vec<u8>) -> &mut [u8] {
        scratch.resize(SCRATCH_LEN, 0);
        scratch
    }
}
