//! Runs a device's worker: one thread and one epoll instance from DRIVER_OK to reset, nothing before and after.

mod acknowledgements;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use virtio_transport::{Host, Interest, Poller, Readiness, Trigger, Worker};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::sys;
use acknowledgements::Acknowledgements;

/// The token of the kick descriptor among a worker's events.
const KICK: u32 = u32::MAX;
/// Events taken from the kernel in one call.
const BATCH: usize = 32;
/// Offset of QueueNotify in the register block (virtio 1.3, 4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;

/// Connects one device to KVM and runs its worker.
pub struct KvmHost<W> {
    vm: Arc<VmFd>,
    name: String,
    gsi: u32,
    notify: IoEventAddress,
    acknowledgements: Acknowledgements,
    irq: Option<Arc<EventFd>>,
    running: Option<Running<W>>,
    kick: Kick,
    on_panic: Arc<dyn Fn() + Send + Sync>,
}

struct Running<W> {
    thread: JoinHandle<W>,
    kick: Arc<EventFd>,
    stop: Arc<AtomicBool>,
}

impl<W: Worker + 'static> KvmHost<W> {
    /// A host for the device called `name` whose register block is at `mmio_base` and whose interrupt line is `gsi`.
    pub fn new(vm: Arc<VmFd>, name: String, gsi: u32, mmio_base: u64) -> Self {
        Self {
            vm,
            name,
            gsi,
            notify: IoEventAddress::Mmio(mmio_base + QUEUE_NOTIFY),
            acknowledgements: Acknowledgements::at(mmio_base),
            irq: None,
            running: None,
            kick: Kick::default(),
            on_panic: Arc::new(|| {}),
        }
    }

    /// Lets the driver's acknowledgements end in `nowhere`, which nobody reads, once there are many: they then cost no exit
    /// to this process. One descriptor does for all devices of a machine.
    #[must_use]
    pub fn end_acknowledgements_in(mut self, nowhere: Arc<EventFd>) -> Self {
        self.acknowledgements.end_in(nowhere);
        self
    }

    /// Calls `act` on the worker's thread if the worker panics: the guest would wait for it for ever.
    #[must_use]
    pub fn on_panic(mut self, act: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_panic = Arc::new(act);
        self
    }

    /// A way to wake the worker from another thread whenever there is one.
    pub(crate) fn kick(&self) -> Kick {
        self.kick.clone()
    }

    fn launch(&self, worker: W) -> Result<Running<W>, (W, io::Error)> {
        let prepared = (|| {
            let kick = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            let poller = EpollPoller::new(&kick)?;
            self.vm.register_ioevent(&kick, &self.notify, NoDatamatch)?;
            Ok((Arc::new(kick), poller))
        })();
        let (kick, mut poller) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((worker, error)),
        };
        let mut worker = worker;
        if let Err(error) = worker.start(&mut poller) {
            self.disconnect(&kick);
            return Err((worker, error));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (hand_over, handed) = std::sync::mpsc::sync_channel(1);
        let stopped = Arc::clone(&stop);
        let on_panic = Arc::clone(&self.on_panic);
        let thread = Builder::new().name(self.name.clone());
        let spawned = sys::with_signals_blocked(|| {
            thread.spawn(move || {
                let _alarm = Alarm(on_panic);
                let worker: W = handed
                    .recv()
                    .expect("the worker is sent right after the thread is there");
                drive(worker, &mut poller, &stopped)
            })
        });
        let started = match spawned {
            Ok(thread) => hand_over.send(worker).map(|()| thread).map_err(|unsent| {
                let gone = io::Error::other("the thread has ended before it began");
                (unsent.0, gone)
            }),
            Err(error) => Err((worker, error)),
        };
        match started {
            Ok(thread) => Ok(Running { thread, kick, stop }),
            Err(refused) => {
                self.disconnect(&kick);
                Err(refused)
            }
        }
    }

    fn disconnect(&self, kick: &EventFd) {
        if let Err(error) = self.vm.unregister_ioevent(kick, &self.notify, NoDatamatch) {
            tracing::warn!(device = self.name, %error, "cannot disconnect the notification");
        }
    }
}

impl<W: Worker + 'static> Host<W> for KvmHost<W> {
    fn connect_interrupt(&mut self) -> io::Result<Box<dyn Trigger>> {
        let irq = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        self.vm.register_irqfd(&irq, self.gsi)?;
        self.irq = Some(Arc::clone(&irq));
        Ok(Box::new(IrqFd(irq)))
    }

    fn start(&mut self, worker: W) -> Result<(), (W, io::Error)> {
        let running = self.launch(worker)?;
        self.kick.set(Some(Arc::clone(&running.kick)));
        self.running = Some(running);
        Ok(())
    }

    fn notify(&mut self, _queue: u16) {
        self.kick.wake();
    }

    fn acknowledged(&mut self) {
        self.acknowledgements.count(&self.vm, &self.name);
    }

    fn stop(&mut self) -> Option<W> {
        self.kick.set(None);
        self.acknowledgements.disconnect(&self.vm, &self.name);
        if let Some(irq) = self.irq.take()
            && let Err(error) = self.vm.unregister_irqfd(&irq, self.gsi)
        {
            tracing::warn!(device = self.name, %error, "cannot disconnect the interrupt");
        }
        let Running { thread, kick, stop } = self.running.take()?;
        self.disconnect(&kick);
        stop.store(true, Ordering::Release);
        wake(&kick);
        thread
            .join()
            .inspect_err(|_| tracing::error!(device = self.name, "the worker has panicked"))
            .ok()
    }
}

/// Goes off when its thread panics.
struct Alarm(Arc<dyn Fn() + Send + Sync>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// Wakes a worker from another thread; does nothing while there is none.
#[derive(Clone, Default)]
pub(crate) struct Kick(Arc<std::sync::Mutex<Option<Arc<EventFd>>>>);

impl Kick {
    pub(crate) fn wake(&self) {
        if let Some(kick) = self.slot().as_deref() {
            wake(kick);
        }
    }

    fn set(&self, kick: Option<Arc<EventFd>>) {
        *self.slot() = kick;
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<EventFd>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A full counter (EAGAIN) has woken the reader already, so a failed write needs no answer.
fn wake(kick: &EventFd) {
    let _ = kick.write(1);
}

struct IrqFd(Arc<EventFd>);

impl Trigger for IrqFd {
    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Calls the worker until `stop`, and gives it back.
fn drive<W: Worker>(mut worker: W, poller: &mut EpollPoller, stop: &AtomicBool) -> W {
    let mut events = [EpollEvent::default(); BATCH];
    worker.notified(poller);
    worker.flush(poller);
    while !stop.load(Ordering::Acquire) {
        let deadline = worker.next_deadline();
        let ready = match poller.wait(deadline, &mut events) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(%error, "cannot wait for events");
                return worker;
            }
        };
        if stop.load(Ordering::Acquire) {
            break;
        }
        for event in &events[..ready] {
            match token(event) {
                KICK => worker.notified(poller),
                token => worker.ready(token, readiness(event.event_set()), poller),
            }
        }
        if let Some(deadline) = deadline {
            pass(deadline, &mut worker, poller);
        }
        worker.flush(poller);
    }
    worker
}

fn pass<W: Worker>(deadline: Instant, worker: &mut W, poller: &mut EpollPoller) {
    let now = Instant::now();
    if now >= deadline {
        worker.deadline_passed(now, poller);
    }
}

fn token(event: &EpollEvent) -> u32 {
    u32::try_from(event.data()).unwrap_or(KICK)
}

fn readiness(set: EventSet) -> Readiness {
    Readiness {
        readable: set.intersects(EventSet::IN | EventSet::READ_HANG_UP),
        writable: set.contains(EventSet::OUT),
        hangup: set.contains(EventSet::HANG_UP),
        error: set.contains(EventSet::ERROR),
    }
}

/// An epoll instance with the kick descriptor in it.
struct EpollPoller {
    epoll: Epoll,
}

impl EpollPoller {
    /// The kick is edge-triggered: each write wakes, and nobody has to read the counter back to zero.
    fn new(kick: &EventFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, u64::from(KICK));
        epoll.ctl(ControlOperation::Add, kick.as_raw_fd(), event)?;
        Ok(Self { epoll })
    }

    fn wait(&self, deadline: Option<Instant>, events: &mut [EpollEvent]) -> io::Result<usize> {
        match self.epoll.wait(timeout_ms(deadline), events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => other,
        }
    }

    fn control(&self, operation: ControlOperation, fd: RawFd, event: EpollEvent) -> io::Result<()> {
        self.epoll.ctl(operation, fd, event)
    }
}

/// Rounded up, so that the deadline has passed when the wait is over.
fn timeout_ms(deadline: Option<Instant>) -> i32 {
    let Some(deadline) = deadline else { return -1 };
    let left = deadline.saturating_duration_since(Instant::now());
    i32::try_from(left.as_millis() + u128::from(left > Duration::ZERO)).unwrap_or(i32::MAX)
}

fn event(token: u32, interest: Interest) -> EpollEvent {
    let mut set = EventSet::empty();
    set.set(EventSet::IN | EventSet::READ_HANG_UP, interest.readable);
    set.set(EventSet::OUT, interest.writable);
    EpollEvent::new(set, u64::from(token))
}

impl Poller for EpollPoller {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.control(ControlOperation::Add, fd.as_raw_fd(), event(token, interest))
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.control(ControlOperation::Modify, fd.as_raw_fd(), event(token, interest))
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(ControlOperation::Delete, fd.as_raw_fd(), EpollEvent::default())
    }
}
