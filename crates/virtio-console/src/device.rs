//! The console as a device of this workspace's transport.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use virtio_transport::{
    ActivateError, Activation, Interest, Interrupt, Memory, Poller, Readiness, VirtioDevice, Worker,
};

use crate::watch::{Direction, Watch};
use crate::wire::{DEVICE_ID, F_MULTIPORT, config_space};
use crate::{ConfigError, ConsoleControl, Handler, Port, Ports, Signals, Stats, TerminalSize};

/// What a console consists of.
#[derive(Debug)]
pub struct ConsoleConfig {
    /// The ports; the first is port 0, the one that a driver without VIRTIO_CONSOLE_F_MULTIPORT has.
    pub ports: Vec<Port>,
}

/// A virtio-console device.
#[derive(Debug)]
pub struct Console {
    /// None while a worker has them.
    ports: Option<Ports>,
    queue_sizes: Vec<u16>,
    features: u64,
    control: ConsoleControl,
    config: ConfigSpace,
}

/// What config space is made from, also while a worker has the ports.
#[derive(Debug)]
struct ConfigSpace {
    port_count: u32,
    /// Of port 0, if that is one.
    terminal: Option<TerminalSize>,
}

impl ConfigSpace {
    fn read(&self) -> [u8; 12] {
        let size = self.terminal.as_ref().map(TerminalSize::get).unwrap_or_default();
        config_space(size, self.port_count)
    }
}

impl Console {
    /// A console with these ports.
    ///
    /// # Errors
    /// See [`Ports::new`].
    pub fn new(config: ConsoleConfig) -> Result<Self, ConfigError> {
        let ports = Ports::new(config.ports)?;
        Ok(Self {
            queue_sizes: ports.queue_sizes().to_vec(),
            features: ports.features(),
            control: ports.console_control(),
            config: ConfigSpace {
                port_count: ports.count(),
                terminal: ports.console_terminal().cloned(),
            },
            ports: Some(ports),
        })
    }

    /// A handle to resize the terminals with, from any thread.
    pub fn control(&self) -> ConsoleControl {
        self.control.clone()
    }
}

impl VirtioDevice for Console {
    type Worker = ConsoleWorker;

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.config.read();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get(offset..))
            .unwrap_or_default();
        for (byte, value) in data.iter_mut().zip(rest) {
            *byte = *value;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<ConsoleWorker, ActivateError> {
        let Activation {
            mem,
            rings,
            features,
            interrupt,
        } = activation;
        if features & F_MULTIPORT != 0 {
            for control in 2_u16..4 {
                if !rings.get(usize::from(control)).is_some_and(virtio_ring::Ring::is_ready) {
                    return Err(ActivateError::QueueMissing(control));
                }
            }
        }
        let ports = self.ports.take().ok_or_else(|| ActivateError::Host {
            what: "start the console twice",
            source: io::ErrorKind::ResourceBusy.into(),
        })?;
        Ok(ConsoleWorker {
            handler: Handler::new(ports, rings, features),
            mem,
            interrupt,
        })
    }

    /// Delivers what can be delivered at once. What the host does not take then is lost with the ring.
    fn reset(&mut self, mut worker: ConsoleWorker) {
        worker.handler.drain(worker.mem.as_ref(), Duration::ZERO);
        self.ports = Some(worker.handler.into_ports());
    }
}

/// The running half of a [`Console`].
#[derive(Debug)]
pub struct ConsoleWorker {
    handler: Handler,
    mem: Memory,
    interrupt: Arc<Interrupt>,
}

impl ConsoleWorker {
    /// What was counted since activation.
    pub fn stats(&self) -> Stats {
        self.handler.stats()
    }
}

impl Worker for ConsoleWorker {
    fn notified(&mut self, poller: &mut dyn Poller) {
        self.handler.notified(self.mem.as_ref(), &mut WatchBy(poller));
    }

    fn ready(&mut self, token: u32, _readiness: Readiness, poller: &mut dyn Poller) {
        self.handler.ready(token, self.mem.as_ref(), &mut WatchBy(poller));
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.handler.wants_again().then(Instant::now)
    }

    fn deadline_passed(&mut self, _now: Instant, poller: &mut dyn Poller) {
        self.notified(poller);
    }

    fn flush(&mut self, _poller: &mut dyn Poller) {
        let Signals {
            used_ring,
            config_changed,
            needs_reset,
        } = self.handler.flush(self.mem.as_ref());
        if used_ring {
            self.interrupt.used_ring();
        }
        if config_changed {
            self.interrupt.config_changed(&self.handler.config_space());
        }
        if needs_reset {
            self.interrupt.needs_reset();
        }
    }

    fn finish(&mut self, patience: Duration) {
        self.handler.drain(self.mem.as_ref(), patience);
    }
}

struct WatchBy<'a>(&'a mut dyn Poller);

impl Watch for WatchBy<'_> {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, direction: Direction) -> io::Result<()> {
        let interest = match direction {
            Direction::Readable => Interest {
                readable: true,
                writable: false,
            },
            Direction::Writable => Interest {
                readable: false,
                writable: true,
            },
        };
        match self.0.add(fd, token, interest) {
            // It was left registered by a worker that the driver's reset ended.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => self.0.modify(fd, token, interest),
            other => other,
        }
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        if let Err(error) = self.0.remove(fd) {
            tracing::debug!(%error, "a descriptor of the console was not registered");
        }
    }
}
