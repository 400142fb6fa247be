//! The device for the transport of this workspace.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_ring::{Ring, RingError};
use virtio_transport::{ActivateError, Activation, Interrupt, Memory, Poller, VirtioDevice, Worker};
use vsock_proto::state::RestoreError;
use vsock_proto::{Cid, Stats};

use crate::backend::HostSockets;
use crate::watch::{Interest, Readiness, Watcher};
use crate::{
    DEVICE_ID, FEATURES, Handler, QUEUE_SIZES, Queues, VsockConfig, VsockConfigError, VsockState, read_config,
};

/// A virtio-vsock device that speaks TSI.
pub struct Vsock {
    guest_cid: Cid,
    stats: Arc<Stats>,
    /// Between resets the worker has it.
    handler: Option<Handler<HostSockets>>,
    started: Instant,
    /// The log has been told of a broken queue; a guest can break one after each reset.
    said_broken: bool,
}

impl Vsock {
    /// A device. Sockets of routes that host clients connect to are made here.
    ///
    /// # Errors
    /// When parts of the set-up contradict each other, or a route's socket cannot be made.
    pub fn new(config: VsockConfig) -> Result<Vsock, VsockConfigError> {
        let guest_cid = config.guest_cid;
        let handler = config.into_handler()?;
        Ok(Vsock {
            guest_cid,
            stats: Arc::clone(handler.stats()),
            handler: Some(handler),
            started: Instant::now(),
            said_broken: false,
        })
    }

    /// The counters, to be read at any time from anywhere.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }
}

impl VirtioDevice for Vsock {
    type Worker = VsockWorker;

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config(self.guest_cid, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<VsockWorker, ActivateError> {
        let Ok([rx, tx, event]) = <[Ring; 3]>::try_from(activation.rings) else {
            return Err(ActivateError::QueueMissing(0));
        };
        for (index, ring) in (0u16..).zip([&rx, &tx]) {
            if !ring.is_ready() {
                return Err(ActivateError::QueueMissing(index));
            }
        }
        let busy = || ActivateError::Host {
            what: "start twice",
            source: io::ErrorKind::ResourceBusy.into(),
        };
        Ok(VsockWorker {
            handler: self.handler.take().ok_or_else(busy)?,
            queues: Queues { rx, tx, event },
            mem: activation.mem,
            interrupt: activation.interrupt,
            started: self.started,
            again: false,
            broken: false,
            said_broken: self.said_broken,
        })
    }

    fn reset(&mut self, worker: VsockWorker) {
        self.said_broken = worker.said_broken;
        let mut handler = worker.handler;
        handler.reset();
        self.handler = Some(handler);
    }
}

/// The running half of [`Vsock`].
pub struct VsockWorker {
    handler: Handler<HostSockets>,
    queues: Queues,
    mem: Memory,
    interrupt: Arc<Interrupt>,
    started: Instant,
    /// There was more to do than one turn allows.
    again: bool,
    /// A ring is broken; nothing moves until a reset.
    broken: bool,
    said_broken: bool,
}

impl VsockWorker {
    /// Tells the driver that all its streams are gone, and ends them when it knows; a restore does so by itself.
    pub fn transport_reset(&mut self) {
        self.handler.transport_reset();
    }

    /// Gives the driver back what waits here, so that the rings can be saved, and says what else is to be saved.
    ///
    /// # Errors
    /// When a ring is broken.
    pub fn save(&mut self) -> Result<VsockState, RingError> {
        if self.handler.quiesce(&mut self.queues, &*self.mem)? {
            self.interrupt.used_ring();
        }
        Ok(self.handler.save())
    }

    /// Takes over a saved state, before anything else happens.
    ///
    /// # Errors
    /// What is wrong with the state; nothing of it is done then.
    pub fn restore(&mut self, state: &VsockState, poller: &mut dyn Poller) -> Result<(), RestoreError> {
        self.handler.restore(self.now(), state, &mut Adapter(poller))
    }

    /// Sends the guest the host's clock, in nanoseconds since 1970.
    pub fn send_time(&mut self, unix_nanos: u64) {
        self.handler.send_time(unix_nanos);
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Worker for VsockWorker {
    fn start(&mut self, poller: &mut dyn Poller) -> io::Result<()> {
        self.handler.start(&mut Adapter(poller))
    }

    /// What is there is found by [`flush`](Worker::flush), which comes next.
    fn notified(&mut self, _poller: &mut dyn Poller) {}

    fn ready(&mut self, token: u32, readiness: virtio_transport::Readiness, poller: &mut dyn Poller) {
        if self.broken {
            return;
        }
        let virtio_transport::Readiness {
            readable,
            writable,
            hangup,
            error,
        } = readiness;
        let readiness = Readiness {
            readable,
            writable,
            hangup,
            error,
        };
        self.handler
            .socket_ready(self.now(), token, readiness, &mut Adapter(poller));
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.broken {
            return None;
        }
        if self.again {
            return Some(self.started);
        }
        // A time that no clock will ever show is none.
        self.started.checked_add(self.handler.next_deadline()?)
    }

    fn deadline_passed(&mut self, _now: Instant, poller: &mut dyn Poller) {
        if !self.broken {
            self.handler.deadline_passed(self.now(), &mut Adapter(poller));
        }
    }

    fn flush(&mut self, poller: &mut dyn Poller) {
        if self.broken {
            return;
        }
        match self
            .handler
            .serve(self.now(), &mut self.queues, &*self.mem, &mut Adapter(poller))
        {
            Ok(served) => {
                self.again = served.again;
                if served.interrupt {
                    self.interrupt.used_ring();
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said_broken, true) {
                    tracing::warn!(%error, "vsock queue is broken, the driver must reset the device");
                }
                (self.broken, self.again) = (true, false);
                self.handler.stop(&mut Adapter(poller));
                self.interrupt.needs_reset();
            }
        }
    }

    fn finish(&mut self, patience: Duration) {
        if self.broken {
            return;
        }
        let now = self.now();
        if let Err(error) = self.handler.finish(now, patience, &mut self.queues, &*self.mem) {
            tracing::warn!(%error, "vsock queue is broken; what the guest sent last may be lost");
        }
    }
}

/// The transport's event loop as the handler wants it.
struct Adapter<'a>(&'a mut dyn Poller);

fn interest_of(Interest { readable, writable }: Interest) -> virtio_transport::Interest {
    virtio_transport::Interest { readable, writable }
}

impl Watcher for Adapter<'_> {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.0.add(fd, token, interest_of(interest))
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.0.modify(fd, token, interest_of(interest))
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.remove(fd)
    }

    fn closing(&mut self, fd: BorrowedFd<'_>) {
        self.0.closing(fd);
    }
}
