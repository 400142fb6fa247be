//! Connects a device to KVM and runs its worker: one thread and one epoll instance from DRIVER_OK to reset, a second thread
//! once the worker has something that takes long, nothing before and after.

mod acknowledgements;
mod alarm;
mod aside;
mod poller;
mod seat;
mod turns;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use virtio_transport::{Host, Trigger, Worker};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::plan::ServedBy;
use crate::sys::{self, RegisterSlot};
use acknowledgements::{Acknowledgements, Quietly};
use poller::EpollPoller;
pub(crate) use seat::Doorbell;
use seat::Seat;
use turns::{Turns, take_turns};

/// Offset of QueueNotify in the register block (virtio 1.3, 4.2.2).
pub(crate) const QUEUE_NOTIFY: u64 = 0x50;

/// Connects one device to KVM and runs its worker.
pub struct KvmHost<W> {
    vm: Arc<VmFd>,
    name: String,
    gsi: u32,
    notify: IoEventAddress,
    acknowledgements: Acknowledgements,
    irq: Option<Arc<EventFd>>,
    served_by: ServedBy,
    /// Where the worker is if vCPUs call it too.
    seat: Arc<Seat<W>>,
    running: Option<Running<W>>,
    kick: Kick,
    on_panic: Arc<dyn Fn() + Send + Sync>,
}

struct Running<W> {
    /// Gives the worker back, unless it is in the seat.
    thread: JoinHandle<Option<W>>,
    kick: Arc<EventFd>,
    stop: Arc<AtomicBool>,
}

impl<W: Worker + 'static> KvmHost<W> {
    /// A host for the device called `name` whose register block is at `mmio_base` and whose interrupt line is `gsi`. A
    /// thread serves it.
    pub fn new(vm: Arc<VmFd>, name: String, gsi: u32, mmio_base: u64) -> Self {
        Self {
            vm,
            name,
            gsi,
            notify: IoEventAddress::Mmio(mmio_base + QUEUE_NOTIFY),
            acknowledgements: Acknowledgements::at(mmio_base),
            irq: None,
            served_by: ServedBy::Thread,
            seat: Arc::new(Seat::empty()),
            running: None,
            kick: Kick::default(),
            on_panic: Arc::new(|| {}),
        }
    }

    /// Lets the driver's acknowledgements end in `nowhere`, which nobody reads, once there are many: they then cost no exit
    /// to this process. One descriptor does for all devices of a machine.
    #[must_use]
    pub fn end_acknowledgements_in(mut self, nowhere: Arc<EventFd>) -> Self {
        self.acknowledgements.when_many(Quietly::InKvm(nowhere));
        self
    }

    /// Lets the driver have its interrupt registers as memory once there are many acknowledgements: they then cost no exit
    /// at all.
    #[must_use]
    pub(crate) fn give_interrupt_registers(mut self, page: RegisterSlot) -> Self {
        self.acknowledgements.when_many(Quietly::InMemory(page));
        self
    }

    /// Lets `served_by` serve what the driver notifies of.
    #[must_use]
    pub fn serve_by(mut self, served_by: ServedBy) -> Self {
        self.served_by = served_by;
        self
    }

    /// What a write to QueueNotify that reaches this process rings; `None` where such writes end inside KVM.
    pub(crate) fn doorbell(&self) -> Option<Arc<dyn Doorbell>> {
        match self.served_by {
            ServedBy::Thread => None,
            ServedBy::Vcpu => Some(Arc::clone(&self.seat) as _),
        }
    }

    /// Calls `act` on the worker's thread if the worker panics there: the guest would wait for it for ever.
    #[must_use]
    pub fn on_panic(mut self, act: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_panic = Arc::new(act);
        self
    }

    /// A way to wake the worker from another thread whenever there is one.
    pub(crate) fn kick(&self) -> Kick {
        self.kick.clone()
    }

    fn launch(&self, mut worker: W) -> Result<Running<W>, (W, io::Error)> {
        let (kick, mut poller) = match self.connect() {
            Ok(connected) => connected,
            Err(error) => return Err((worker, error)),
        };
        // Before its first look: it need not be woken for what came earlier.
        self.kick.set(Some(Arc::clone(&kick)));
        if let Err(error) = worker.start(&mut poller) {
            self.disconnect(&kick);
            return Err((worker, error));
        }
        self.seat.put(Turns::new(worker, poller.clone()), Arc::clone(&kick));
        let stop = Arc::new(AtomicBool::new(false));
        match self.spawn(poller, Arc::clone(&stop)) {
            Ok(thread) => Ok(Running { thread, kick, stop }),
            Err(error) => {
                self.disconnect(&kick);
                let turns = self.seat.take();
                let worker = turns.expect("it was put there and nobody was there to call it").worker;
                Err((worker, error))
            }
        }
    }

    fn connect(&self) -> io::Result<(Arc<EventFd>, EpollPoller)> {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let poller = EpollPoller::new(&self.name, &kick)?;
        if self.served_by == ServedBy::Thread {
            self.vm.register_ioevent(&kick, &self.notify, NoDatamatch)?;
        }
        Ok((kick, poller))
    }

    fn disconnect(&self, kick: &EventFd) {
        if self.served_by == ServedBy::Thread
            && let Err(error) = self.vm.unregister_ioevent(kick, &self.notify, NoDatamatch)
        {
            tracing::warn!(device = self.name, %error, "cannot disconnect the notification");
        }
    }

    fn spawn(&self, poller: EpollPoller, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<Option<W>>> {
        let (seat, served_by) = (Arc::clone(&self.seat), self.served_by);
        let on_panic = Arc::clone(&self.on_panic);
        let thread = Builder::new().name(self.name.clone());
        sys::with_signals_blocked(|| {
            thread.spawn(move || {
                let _alarm = PanicAlarm(on_panic);
                match served_by {
                    ServedBy::Thread => own(&seat, &poller, &stop),
                    ServedBy::Vcpu => {
                        take_turns(&poller, &stop, |events| seat.turn(events));
                        None
                    }
                }
            })
        })
    }
}

/// Takes the worker out of the seat, and all of its turns.
fn own<W: Worker>(seat: &Seat<W>, poller: &EpollPoller, stop: &AtomicBool) -> Option<W> {
    let mut turns = seat.take()?;
    let mut first = true;
    take_turns(poller, stop, |events| {
        Some(turns.turn(events, std::mem::take(&mut first)))
    });
    Some(turns.worker)
}

impl<W: Worker + 'static> Host<W> for KvmHost<W> {
    fn connect_interrupt(&mut self) -> io::Result<Box<dyn Trigger>> {
        self.acknowledgements.hear_again(&self.vm)?;
        let irq = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        self.vm.register_irqfd(&irq, self.gsi)?;
        self.irq = Some(Arc::clone(&irq));
        Ok(Box::new(IrqFd(irq)))
    }

    fn start(&mut self, worker: W) -> Result<(), (W, io::Error)> {
        let launched = self.launch(worker);
        if launched.is_err() {
            self.kick.set(None);
        }
        self.running = Some(launched?);
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
        if let Err(error) = self.acknowledgements.hear_again(&self.vm) {
            tracing::warn!(device = self.name, %error, "cannot have the acknowledgements back");
        }
        if let Some(irq) = self.irq.take()
            && let Err(error) = self.vm.unregister_irqfd(&irq, self.gsi)
        {
            tracing::warn!(device = self.name, %error, "cannot disconnect the interrupt");
        }
        let Running { thread, kick, stop } = self.running.take()?;
        self.disconnect(&kick);
        stop.store(true, Ordering::Release);
        wake(&kick);
        let worker = thread
            .join()
            .ok()
            .and_then(|own| own.or_else(|| Some(self.seat.take()?.worker)));
        if worker.is_none() {
            tracing::error!(device = self.name, "the worker has panicked");
        }
        worker
    }
}

/// Goes off when its thread panics.
struct PanicAlarm(Arc<dyn Fn() + Send + Sync>);

impl Drop for PanicAlarm {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use kvm_ioctls::Kvm;
    use virtio_transport::Poller;

    use super::*;

    /// Is woken by somebody else while it starts, and tells each time that it looks.
    struct WokenAtStart {
        kick: Kick,
        looks: Sender<()>,
    }

    impl Worker for WokenAtStart {
        fn start(&mut self, _poller: &mut dyn Poller) -> io::Result<()> {
            self.kick.wake();
            Ok(())
        }

        fn notified(&mut self, _poller: &mut dyn Poller) {
            self.looks.send(()).unwrap();
        }
    }

    /// A terminal that is resized then has its new size only if the worker looks.
    #[test]
    fn wake_of_a_worker_that_is_being_started_is_not_lost() {
        let Ok(kvm) = Kvm::new() else {
            return eprintln!("skipped: this test needs /dev/kvm");
        };
        let vm = Arc::new(kvm.create_vm().unwrap());
        let mut host = KvmHost::new(vm, "test".to_owned(), 5, 0xd000_0000);
        let (looks, looked) = channel();
        let worker = WokenAtStart {
            kick: host.kick(),
            looks,
        };
        assert!(host.start(worker).is_ok());
        let [at_first, when_woken] = [(); 2].map(|()| looked.recv_timeout(Duration::from_secs(5)));
        assert!(host.stop().is_some());
        assert_eq!((at_first, when_woken), (Ok(()), Ok(())));
    }
}
