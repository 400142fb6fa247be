//! The third step: run the machine until it ends.

mod control;
mod handle;
mod vcpu;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use virtio_transport::Memory;

pub(crate) use control::{Control, End};
pub use handle::Handle;
pub(crate) use handle::Wires;
pub(crate) use vcpu::{Surroundings, Vcpu};

use crate::exit::Exit;
use crate::sys;
use control::Wake;

/// A machine that is built and has not run yet.
pub struct Machine {
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) around: Surroundings,
    pub(crate) wires: Wires,
    /// What the wires lead to, the host's end of the port `tessera-control`.
    pub(crate) signals: Option<Arc<UnixStream>>,
    /// The kernel is known to take its devices before its init runs.
    pub(crate) drivers_first: bool,
    /// Keeps guest memory mapped for as long as a vCPU can run.
    pub(crate) mem: Memory,
}

/// How long the end of a machine waits for a reader of the guest's last output.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// Why a machine could not be run.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread of vCPU {vcpu}")]
pub struct RunError {
    /// Which vCPU.
    pub vcpu: u32,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Machine {
    /// A handle to control the machine from other threads, before, while and after it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.around.control), self.wires.clone())
    }

    /// Runs the machine until it ends. When this returns, its threads are joined and its descriptors closed.
    ///
    /// The end waits up to 10 seconds for readers of the guest's last output, and beside that for what its devices have begun on
    /// the host: as long as the disk takes for the syncs that a guest has asked for.
    ///
    /// `SIGSTKFLT` is reserved meanwhile: the threads of the vCPUs are sent it, to call them out of the guest, and take one that
    /// is sent to the process. Nothing else uses it on Linux. It needs no handler, and none that it has is called.
    ///
    /// # Errors
    /// [`RunError`] when a thread cannot be started; those that were are joined.
    pub fn run(self) -> Result<Exit, RunError> {
        let Self {
            vcpus,
            around,
            mem: _mem,
            drivers_first,
            wires: _,
            signals: _signals,
        } = self;
        let threads = start(vcpus, &around);
        if threads.is_err() {
            around.control.end(End::Stopped);
        }
        let (threads, failed) = match threads {
            Ok(threads) => (threads, None),
            Err((threads, error)) => (threads, Some(error)),
        };
        let end = attend(&around.control, &threads);
        for thread in threads {
            // A vCPU thread that panicked has printed why; the machine ends all the same.
            let _ = thread.join();
        }
        let cause = end.cause(|| around.drivers(drivers_first));
        if let Some(counts) = around.irqchip.counts() {
            tracing::debug!(?counts, "the split irqchip is done");
        }
        around.mmio.shutdown(LAST_OUTPUT);
        match failed {
            Some(error) => Err(error),
            None => Ok(Exit::classify(cause, around.control.reported())),
        }
    }
}

type Threads = Vec<JoinHandle<()>>;

fn start(vcpus: Vec<Vcpu>, around: &Surroundings) -> Result<Threads, (Threads, RunError)> {
    let mut threads = Vec::with_capacity(vcpus.len());
    for vcpu in vcpus {
        let index = vcpu.index;
        let around_it = around.clone();
        around.control.enter(index);
        let thread = Builder::new().name(format!("vcpu{index}"));
        match sys::with_signals_blocked(|| thread.spawn(move || vcpu.run(&around_it))) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                around.control.leave(index);
                return Err((threads, RunError { vcpu: index, source }));
            }
        }
    }
    Ok(threads)
}

/// Calls the vCPUs back for each pause, and for the end.
fn attend(control: &Control, threads: &Threads) -> End {
    loop {
        let wake = control.wait_for_work();
        control.call_back(|vcpu| kick(threads, vcpu));
        if let Wake::End(end) = wake {
            return end;
        }
    }
}

/// The thread of each vCPU is at its number.
fn kick(threads: &Threads, vcpu: u32) {
    if let Some(thread) = usize::try_from(vcpu).ok().and_then(|at| threads.get(at)) {
        sys::kick(thread);
    }
}
