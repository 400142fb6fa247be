//! One vCPU's thread: enter the guest, answer its accesses, until the machine ends.

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::control::{Control, End, Next};
use crate::bus::MmioBus;
use crate::exit::{Drivers, VcpuFault};
use crate::irqchip::InterruptControllers;
use crate::legacy::PortBus;
use crate::sys;

/// What a vCPU talks to.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) control: Arc<Control>,
    pub(crate) mmio: Arc<MmioBus>,
    pub(crate) ports: Arc<PortBus>,
    pub(crate) irqchip: InterruptControllers,
}

impl Surroundings {
    /// What the guest's drivers have left behind. `drivers_first` when they take devices before init runs.
    pub(crate) fn drivers(&self, drivers_first: bool) -> Drivers {
        if self.irqchip.drivers_live() {
            Drivers::Live
        } else if drivers_first && !self.mmio.has_run() {
            Drivers::Missing
        } else {
            Drivers::Quiet
        }
    }
}

/// One vCPU and its number.
pub(crate) struct Vcpu {
    pub(crate) index: u32,
    pub(crate) fd: VcpuFd,
}

/// A vCPU thread that has entered. However it leaves, nobody waits for it; one that panics ends the machine.
struct Presence<'a> {
    control: &'a Control,
    vcpu: u32,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let fault = VcpuFault::Panicked { vcpu: self.vcpu };
            self.control.end(End::Fault(fault));
        }
        self.control.leave(self.vcpu);
    }
}

impl Vcpu {
    /// Runs the vCPU until the machine ends, on a thread whose signals are blocked but for the kick inside `KVM_RUN`.
    pub(crate) fn run(mut self, around: &Surroundings) {
        let _presence = Presence {
            control: &around.control,
            vcpu: self.index,
        };
        if let Err(error) = sys::let_kicks_through(&self.fd) {
            around.control.end(End::Fault(VcpuFault::Run {
                vcpu: self.index,
                errno: error.to_string(),
            }));
        }
        while around.control.next(self.index) == Next::Run {
            if let Some(end) = self.step(around) {
                around.control.end(end);
            }
        }
    }

    /// Enters the guest once; `Some` ends the machine.
    fn step(&mut self, around: &Surroundings) -> Option<End> {
        let vcpu = self.index;
        let fault = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                around.ports.read(port, data);
                return None;
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                around.ports.write(port, data);
                return None;
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                around.mmio.read(address, data);
                return None;
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                around.mmio.write(address, data);
                return None;
            }
            Ok(VcpuExit::IoapicEoi(vector)) => {
                around.irqchip.end_of_interrupt(vector);
                return None;
            }
            Ok(VcpuExit::Intr) => {
                sys::consume_kick();
                return None;
            }
            Ok(VcpuExit::SystemEvent(..)) => return Some(End::Reset),
            Ok(VcpuExit::Shutdown) => VcpuFault::TripleFault { vcpu, rip: self.rip() },
            Ok(VcpuExit::FailEntry(reason, _)) => VcpuFault::EntryFailed { vcpu, reason },
            Ok(VcpuExit::InternalError) => VcpuFault::Internal {
                vcpu,
                suberror: sys::internal_suberror(&mut self.fd),
                rip: self.rip(),
            },
            Ok(other) => VcpuFault::Unexpected {
                vcpu,
                exit: format!("{other:?}"),
            },
            Err(error) => match error.errno() {
                libc::EINTR => {
                    sys::consume_kick();
                    return None;
                }
                libc::EAGAIN => return None,
                _ => VcpuFault::Run {
                    vcpu,
                    errno: error.to_string(),
                },
            },
        };
        Some(End::Fault(fault))
    }

    /// Where the guest was, for messages.
    fn rip(&self) -> u64 {
        self.fd.get_regs().map_or(0, |regs| regs.rip)
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Wake;
    use super::*;

    #[test]
    fn vcpu_thread_that_panics_ends_the_machine_and_leaves() {
        let control = Arc::new(Control::default());
        control.enter(7);
        let its = Arc::clone(&control);
        let thread = std::thread::spawn(move || {
            let _presence = Presence { control: &its, vcpu: 7 };
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        let end = End::Fault(VcpuFault::Panicked { vcpu: 7 });
        assert_eq!(control.wait_for_work(), Wake::End(end));
        control.pause();
    }
}
