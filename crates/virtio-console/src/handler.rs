//! The console between its rings and the host, without a transport.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use virtio_ring::{Chain, Nearby, Ring, RingError};
use vm_memory::GuestMemoryBackend;

use crate::budget::Budget;
use crate::control::Event;
use crate::input::{Context, Moved};
use crate::output::Written;
use crate::ports::{PortState, Ports, Warned};
use crate::watch::{Direction, Watch};
use crate::wire::{F_MULTIPORT, FromDriver, MESSAGE_LEN};
use crate::{Size, Stats};

/// Moved through this at a time; a guest's pipe writes come in 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;

/// What [`Handler::flush`] asks of the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Raise the interrupt for used buffers.
    pub used_ring: bool,
    /// The size in config space has changed: raise the configuration interrupt.
    pub config_changed: bool,
    /// The driver has broken a ring: set DEVICE_NEEDS_RESET.
    pub needs_reset: bool,
}

/// The console's running half: rings, ports, and the state of the control protocol.
///
/// Call [`notified`](Self::notified) when the driver has made buffers available on whatever queue, and after a change of a
/// terminal's size; [`ready`](Self::ready) when a watched descriptor is ready; after each batch of those
/// [`flush`](Self::flush), and do what it says. If then [`wants_again`](Self::wants_again), call `notified` soon.
pub struct Handler {
    ports: Ports,
    queues: Vec<PortQueues>,
    /// With VIRTIO_CONSOLE_F_MULTIPORT: from the device to the driver, and from the driver.
    control_queues: Option<ControlQueues>,
    chain: Chain,
    buffer: Box<[u8]>,
    message: Vec<u8>,
    stats: Stats,
    /// Without MULTIPORT: the size that config space had when the driver was last told.
    told_size: Size,
    config_changed: bool,
    broken: bool,
    again: bool,
}

struct PortQueues {
    rx: Ring,
    tx: Ring,
    guest_open: bool,
    /// The guest has closed the port; what it wrote before is still on its way.
    closing: bool,
}

struct ControlQueues {
    to_driver: Ring,
    from_driver: Ring,
}

impl Handler {
    /// Starts with `rings` in the order of the standard's queues (virtio 1.3, 5.3.2): port 0 receive and transmit, control
    /// to and from the driver, port 1 receive and transmit, and so on; and with the feature bits agreed on.
    /// A ring that is missing is like one that the driver left disabled: always empty.
    pub fn new(mut ports: Ports, rings: Vec<Ring>, features: u64) -> Self {
        let multiport = features & F_MULTIPORT != 0;
        let mut pairs = pairs(rings).into_iter();
        let first = pairs.next();
        let control = pairs.next();
        let queues = first
            .into_iter()
            .chain(pairs)
            .enumerate()
            .map(|(index, (rx, tx))| PortQueues {
                rx,
                tx,
                // Without control messages there is one port, and it is always open.
                guest_open: !multiport && index == 0,
                closing: false,
            });
        ports.restart();
        Self {
            told_size: ports.console_size(),
            queues: queues.collect(),
            control_queues: control
                .filter(|_| multiport)
                .map(|(to_driver, from_driver)| ControlQueues { to_driver, from_driver }),
            ports,
            chain: Chain::new(),
            buffer: vec![0; BUFFER_LEN].into(),
            message: Vec::new(),
            stats: Stats::default(),
            config_changed: false,
            broken: false,
            again: false,
        }
    }

    /// The ports, for another activation. Rings and watches are given up.
    pub fn into_ports(mut self) -> Ports {
        self.ports.restart();
        self.ports
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Config space as it is now (virtio 1.3, 5.3.4).
    pub fn config_space(&self) -> [u8; 12] {
        self.ports.config_space()
    }

    /// Buffers may be available on any queue, or a size may have changed.
    pub fn notified<M: GuestMemoryBackend>(&mut self, mem: &M, watch: &mut dyn Watch) {
        let mem = &Nearby::new(mem);
        self.again = false;
        self.take_messages(mem);
        for index in 0..self.queues.len() {
            self.move_output(index, mem, watch);
            self.move_input(index, mem, watch);
        }
        self.look_at_sizes();
        self.give_messages(mem);
    }

    /// The descriptor that was watched with `token` is ready.
    pub fn ready<M: GuestMemoryBackend>(&mut self, token: u32, mem: &M, watch: &mut dyn Watch) {
        let mem = &Nearby::new(mem);
        let (index, direction) = port_of(token);
        match direction {
            Direction::Readable => self.move_input(index, mem, watch),
            Direction::Writable => self.move_output(index, mem, watch),
        }
        self.give_messages(mem);
    }

    /// Shows the driver what was done.
    pub fn flush<M: GuestMemoryBackend>(&mut self, mem: &M) -> Signals {
        let mem = &Nearby::new(mem);
        let mut used_ring = false;
        // Data before control: that a stream has ended must not overtake its last bytes.
        let data = self
            .queues
            .iter_mut()
            .flat_map(|queues| [&mut queues.rx, &mut queues.tx]);
        let control = self
            .control_queues
            .iter_mut()
            .flat_map(|queues| [&mut queues.from_driver, &mut queues.to_driver]);
        for ring in data.chain(control) {
            match ring.publish(mem) {
                Ok(wanted) => used_ring |= wanted,
                Err(error) => note(&mut self.broken, &mut self.ports.warned, &error),
            }
        }
        Signals {
            used_ring,
            config_changed: std::mem::take(&mut self.config_changed),
            needs_reset: self.broken,
        }
    }

    /// More is to be done than one call should: call [`notified`](Self::notified) soon.
    pub fn wants_again(&self) -> bool {
        self.again
    }

    /// Delivers what the guest has written, for a driver that runs no more. Waits at most `timeout` for outputs that take
    /// nothing. False when something is left.
    pub fn drain<M: GuestMemoryBackend>(&mut self, mem: &M, timeout: Duration) -> bool {
        let mem = &Nearby::new(mem);
        let deadline = Instant::now().checked_add(timeout);
        loop {
            self.again = false;
            self.take_messages(mem);
            for index in 0..self.queues.len() {
                self.move_output(index, mem, &mut NoWatch);
            }
            let mut blocked = self.ports.blocked();
            if blocked.is_empty() && !self.again {
                return true;
            }
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            if !self.again && rustix::event::poll(&mut blocked, Timespec::try_from(left).ok().as_ref()).is_err() {
                return false;
            }
        }
    }

    fn take_messages<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) {
        if let Err(error) = self.try_take_messages(mem) {
            note(&mut self.broken, &mut self.ports.warned, &error);
        }
    }

    fn try_take_messages<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<(), RingError> {
        let Some(ControlQueues { from_driver, .. }) = &mut self.control_queues else {
            return Ok(());
        };
        let mut budget = Budget::for_ring(from_driver);
        loop {
            if budget.is_spent(from_driver) {
                self.again = true;
                return Ok(());
            }
            if !from_driver.pop(mem, &mut self.chain)? {
                if from_driver.enable_notification(mem)? {
                    continue;
                }
                return Ok(());
            }
            budget.take_chain();
            let mut bytes = [0; MESSAGE_LEN];
            let event = match self.chain.read_at(mem, 0, &mut bytes) {
                Ok(()) => self.ports.control.handle(FromDriver::parse(bytes)),
                Err(_) => Event::Bad,
            };
            from_driver.push_used(mem, self.chain.head(), 0)?;
            apply(event, &mut self.queues, &mut self.stats, &mut self.ports.warned);
        }
    }

    fn give_messages<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) {
        if let Err(error) = self.try_give_messages(mem) {
            note(&mut self.broken, &mut self.ports.warned, &error);
        }
    }

    fn try_give_messages<M: GuestMemoryBackend>(&mut self, mem: &Nearby<'_, M>) -> Result<(), RingError> {
        let Some(ControlQueues { to_driver, .. }) = &mut self.control_queues else {
            return Ok(());
        };
        let mut budget = Budget::for_ring(to_driver);
        while let Some(due) = self.ports.control.due() {
            if budget.is_spent(to_driver) {
                self.again = true;
                return Ok(());
            }
            if !to_driver.pop(mem, &mut self.chain)? {
                if to_driver.enable_notification(mem)? {
                    continue;
                }
                return Ok(());
            }
            budget.take_chain();
            due.message.emit(due.port, &mut self.message);
            let token = due.token();
            let len = match self.chain.write_at(mem, 0, &self.message) {
                Ok(()) => {
                    self.ports.control.sent(token);
                    u32::try_from(self.message.len()).unwrap_or(u32::MAX)
                }
                Err(_) => {
                    self.stats.short_control_buffers = self.stats.short_control_buffers.saturating_add(1);
                    0
                }
            };
            to_driver.push_used(mem, self.chain.head(), len)?;
        }
        Ok(())
    }

    fn move_input<M: GuestMemoryBackend>(&mut self, index: usize, mem: &Nearby<'_, M>, watch: &mut dyn Watch) {
        let (Some(queues), Some(port)) = (self.queues.get_mut(index), self.ports.states.get_mut(index)) else {
            return;
        };
        if !queues.guest_open {
            // The driver throws away what comes for a port that nobody has open.
            port.input.stop_watching(watch);
            return;
        }
        let mut context = Context {
            mem,
            buffer: &mut self.buffer,
            stats: &mut self.stats,
            watch,
        };
        match port
            .input
            .pump(&mut queues.rx, &mut self.chain, input_token(index), &mut context)
        {
            Ok(Moved::All) => {}
            Ok(Moved::Part) => self.again = true,
            Ok(Moved::Ended) => self.ports.control.host_closed(index),
            Err(error) => {
                port.input.stop_watching(watch);
                note(&mut self.broken, &mut self.ports.warned, &error);
            }
        }
    }

    fn move_output<M: GuestMemoryBackend>(&mut self, index: usize, mem: &Nearby<'_, M>, watch: &mut dyn Watch) {
        let (Some(queues), Some(port)) = (self.queues.get_mut(index), self.ports.states.get_mut(index)) else {
            return;
        };
        let mut context = Context {
            mem,
            buffer: &mut self.buffer,
            stats: &mut self.stats,
            watch,
        };
        match port.output.pump(&mut queues.tx, output_token(index), &mut context) {
            Ok(Written::All) => {
                if std::mem::take(&mut queues.closing) && port.is_pipe {
                    port.close(watch);
                }
            }
            Ok(Written::Part) => self.again = true,
            Ok(Written::Blocked) => {}
            Err(error) => note(&mut self.broken, &mut self.ports.warned, &error),
        }
    }

    fn look_at_sizes(&mut self) {
        if self.control_queues.is_some() {
            self.ports.control.look_at_sizes();
            return;
        }
        let size = self.ports.console_size();
        if size != self.told_size {
            self.told_size = size;
            self.config_changed = true;
        }
    }
}

fn apply(event: Event, queues: &mut [PortQueues], stats: &mut Stats, warned: &mut Warned) {
    match event {
        Event::Nothing => {}
        Event::Opened { port } => {
            if let Some(queues) = queues.get_mut(port) {
                queues.guest_open = true;
                queues.closing = false;
            }
        }
        Event::Closed { port } => {
            if let Some(queues) = queues.get_mut(port) {
                queues.guest_open = false;
                queues.closing = true;
            }
        }
        Event::Bad => {
            if !std::mem::replace(&mut warned.bad_control, true) {
                tracing::warn!("the driver sent a bad control message; further ones are only counted");
            }
            stats.bad_control = stats.bad_control.saturating_add(1);
        }
    }
}

fn note(broken: &mut bool, warned: &mut Warned, error: &RingError) {
    *broken = true;
    if !std::mem::replace(&mut warned.broken_ring, true) {
        tracing::warn!(%error, "the driver has broken a ring of the console; further ones are not reported");
    }
}

fn pairs(rings: Vec<Ring>) -> Vec<(Ring, Ring)> {
    let mut rings = rings.into_iter();
    let mut pairs = Vec::new();
    while let (Some(first), Some(second)) = (rings.next(), rings.next()) {
        pairs.push((first, second));
    }
    pairs
}

fn input_token(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX / 2).wrapping_mul(2)
}

fn output_token(index: usize) -> u32 {
    input_token(index) | 1
}

fn port_of(token: u32) -> (usize, Direction) {
    let direction = if token & 1 == 0 {
        Direction::Readable
    } else {
        Direction::Writable
    };
    (usize::try_from(token / 2).unwrap_or(usize::MAX), direction)
}

/// For draining, which waits by itself.
struct NoWatch;

impl Watch for NoWatch {
    fn watch(&mut self, _: std::os::fd::BorrowedFd<'_>, _: u32, _: Direction) -> std::io::Result<()> {
        Ok(())
    }

    fn unwatch(&mut self, _: std::os::fd::BorrowedFd<'_>) {}
}

impl PortState {
    fn close(&mut self, watch: &mut dyn Watch) {
        self.input.close(watch);
        self.output.close(watch);
    }
}

impl Ports {
    fn restart(&mut self) {
        self.control.restart();
        for port in &mut self.states {
            port.input.forget_watch();
            port.output.forget_ring();
        }
    }

    fn blocked(&self) -> Vec<PollFd<'_>> {
        let fds = self.states.iter().filter_map(|port| port.output.blocked_fd());
        fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)).collect()
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("stats", &self.stats)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}
