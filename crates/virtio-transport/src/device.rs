//! What a device is to the transport, and what the transport needs from the monitor around it.
//!
//! A device has two halves. The front half, [`VirtioDevice`], answers what a driver may ask at any time: identity,
//! features, config space. At DRIVER_OK it hands out the other half, its [`Worker`], which owns the rings and moves
//! the data. The monitor drives the worker from whatever thread it likes, through [`Host`]; neither half starts one.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_ring::Ring;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::Interrupt;

/// Guest memory as the transport hands it to a device.
pub type Memory = Arc<GuestMemoryMmap<()>>;

/// The front half of a virtio device.
pub trait VirtioDevice: Send {
    /// The half that runs between DRIVER_OK and reset.
    type Worker: Worker;

    /// The device ID (virtio 1.3, 5).
    fn device_id(&self) -> u32;

    /// The largest size of each queue, in queue order. Each is a power of two.
    fn queue_max_sizes(&self) -> &[u16];

    /// Offered feature bits. The transport adds VIRTIO_F_VERSION_1.
    fn features(&self) -> u64;

    /// Fills `data`, which is all zero, from config space at `offset`; what lies beyond the end reads as 0. The driver
    /// may ask in any state, with any offset below 0xf00 and any length.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes config space. Most devices have nothing there to write. The driver may do it in any state, with any
    /// offset below 0xf00 and any length.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The shared memory region with this id, if there is one (virtio 1.3, 2.10).
    fn shared_memory(&self, _id: u32) -> Option<SharedMemory> {
        None
    }

    /// The driver is ready: hand out the running half.
    ///
    /// # Errors
    /// When the device cannot run with these queues and features; the transport then sets DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<Self::Worker, ActivateError>;

    /// The driver reset the device: take back what the worker held. [`activate`](Self::activate) may follow.
    fn reset(&mut self, worker: Self::Worker);
}

/// Host memory that the driver sees at guest addresses beside its own, such as a DAX window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemory {
    /// Where it starts.
    pub addr: GuestAddress,
    /// Length in bytes.
    pub len: u64,
}

/// What a device gets at DRIVER_OK.
#[derive(Debug)]
pub struct Activation {
    /// Guest memory.
    pub mem: Memory,
    /// One ring for each of [`VirtioDevice::queue_max_sizes`]; one that the driver left disabled is always empty.
    pub rings: Vec<Ring>,
    /// The feature bits that both sides agreed on.
    pub features: u64,
    /// The way to the driver.
    pub interrupt: Arc<Interrupt>,
}

/// Why a device would not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivateError {
    /// The driver left out a queue that the device cannot do without.
    #[error("queue {0} is not enabled")]
    QueueMissing(u16),
    /// The host refused something that the device needs to run.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The running half of a device. One thread at a time calls it, in any order of inputs; after each batch of inputs the
/// caller calls [`flush`](Self::flush) once.
pub trait Worker: Send {
    /// Registers the descriptors that the worker waits for from the start.
    ///
    /// # Errors
    /// When the poller refuses one.
    fn start(&mut self, _poller: &mut dyn Poller) -> io::Result<()> {
        Ok(())
    }

    /// The driver made buffers available on some queue (virtio 1.3, 4.2.2 QueueNotify). May come without reason.
    fn notified(&mut self, poller: &mut dyn Poller);

    /// [`notified`](Self::notified) and [`flush`](Self::flush) in one, on the thread of the processor that has notified and
    /// that the driver misses meanwhile: the worker does what is short, and begins nothing that may take long. False
    /// when it leaves something; `notified` follows then.
    fn notified_in_passing(&mut self, _poller: &mut dyn Poller) -> bool {
        false
    }

    /// A registered descriptor is ready. May come late: for a token that was unregistered in the same batch too.
    fn ready(&mut self, _token: u32, _readiness: Readiness, _poller: &mut dyn Poller) {}

    /// When [`deadline_passed`](Self::deadline_passed) wants to be called next.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// The time that [`next_deadline`](Self::next_deadline) named has come.
    fn deadline_passed(&mut self, _now: Instant, _poller: &mut dyn Poller) {}

    /// The batch of inputs is over: publish used buffers and interrupt the driver where it wants to be.
    fn flush(&mut self, _poller: &mut dyn Poller) {}

    /// The driver has stopped for good: deliver what it has handed over, and take no longer than `patience` for it. A second
    /// more may pass, `patience` if that is shorter, for a close that does not undo what was delivered.
    fn finish(&mut self, _patience: Duration) {}
}

/// Where a worker registers descriptors to be woken for, level-triggered, and leaves what takes long.
pub trait Poller {
    /// Starts waiting for `interest` on `fd`; events come back with `token`. `u32::MAX` is the caller's own.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`: EEXIST for a descriptor that is registered, ENOSPC and ENOMEM for limits, EPERM for a
    /// regular file.
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()>;

    /// Changes what a registered descriptor is waited for.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()>;

    /// Stops waiting. This or [`closing`](Self::closing) is to be called before the descriptor is closed.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// In the place of [`remove`](Self::remove): `fd` is about to be closed, and is the only descriptor of what it stands for.
    /// An epoll instance then forgets it by itself, which saves a call.
    fn closing(&mut self, fd: BorrowedFd<'_>) {
        // One that is not known is as good as removed.
        let _ = self.remove(fd);
    }

    /// Runs `task`, which may take long, on another thread, and calls [`Worker::notified`] after it. Tasks of one worker may
    /// run one after another. One that has begun is waited for by [`Host::stop`], the others may be dropped.
    ///
    /// # Errors
    /// The task, where there is no such thread: the worker runs it itself.
    fn run_aside(&mut self, task: Task) -> Result<(), Task> {
        Err(task)
    }
}

/// What a worker leaves to another thread.
pub type Task = Box<dyn FnOnce() + Send>;

/// What to wait for. Hang-up and error are always reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// There is something to read, or the peer has closed its sending side.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read, or the peer has closed its sending side.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// Both directions are closed (EPOLLHUP).
    pub hangup: bool,
    /// An error is pending (EPOLLERR).
    pub error: bool,
}

/// What the monitor does for one device: it connects the interrupt and the notification, and runs the worker.
///
/// Nothing is asked of it before DRIVER_OK, so a device that no driver takes costs nothing.
pub trait Host<W: Worker>: Send {
    /// Connects the interrupt line, once for each activation and before [`start`](Self::start). It stays connected
    /// until [`stop`](Self::stop), also when the device or the host refuses to start.
    ///
    /// # Errors
    /// When the host is out of descriptors or refuses the connection.
    fn connect_interrupt(&mut self) -> io::Result<Box<dyn Trigger>>;

    /// Connects the notification and runs `worker` until [`stop`](Self::stop).
    ///
    /// # Errors
    /// When the worker cannot be run; it comes back with the reason.
    fn start(&mut self, worker: W) -> Result<(), (W, io::Error)>;

    /// Passes on a notification that reached the register block instead of the kick descriptor. Only for queues that
    /// the device has, and only while the worker runs.
    fn notify(&mut self, queue: u16);

    /// The driver has acknowledged used buffers, and nothing else, through the register block. A host for which such a
    /// write is dear may see to it that further ones do not come: [`RegisterPage`](crate::RegisterPage) says what the
    /// driver reads then.
    fn acknowledged(&mut self) {}

    /// Stops the worker, disconnects what was connected and gives the worker back; `None` if it was not running.
    /// Called once after each [`connect_interrupt`](Self::connect_interrupt), from the thread of the access that resets
    /// the device. A worker that was running and does not come back takes the device out of use for good.
    fn stop(&mut self) -> Option<W>;
}

/// The device's interrupt line: an irqfd, an MSI, a recording in a test.
pub trait Trigger: Send + Sync {
    /// Raises one edge.
    ///
    /// # Errors
    /// As the write to the descriptor behind it.
    fn trigger(&self) -> io::Result<()>;
}
