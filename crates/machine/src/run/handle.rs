//! Control of a machine from other threads.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use rustix::net::SendFlags;
use virtio_console::{ConsoleControl, Size};
use virtio_vsock_tsi::Stats as VsockStats;

use super::control::{Control, End};
use crate::worker::Kick;

/// Controls a machine from any thread. Cheap to clone; harmless once the machine has ended, and holds no descriptor of it.
#[derive(Clone)]
pub struct Handle {
    control: Arc<Control>,
    wires: Wires,
}

/// What reaches into single devices.
#[derive(Clone, Default)]
pub(crate) struct Wires {
    /// The host's end of the port `tessera-control`, while there is the machine that has it.
    pub(crate) signals: Weak<UnixStream>,
    pub(crate) console: Option<(ConsoleControl, Kick)>,
    pub(crate) vsock: Option<Arc<VsockStats>>,
}

impl Handle {
    pub(crate) fn new(control: Arc<Control>, wires: Wires) -> Self {
        Self { control, wires }
    }

    /// Ends the machine as it stands: the guest hears nothing of it. What its devices have begun on the host, such as to sync
    /// a file, is not broken off; [`run`](crate::Machine::run) returns after it.
    pub fn stop(&self) {
        self.control.end(End::Stopped);
    }

    /// Takes all vCPUs out of the guest; returns when they are. One for which a device is at work leaves when that is done, which
    /// may take as long as the host's disk does. Devices go on with what they were asked for.
    pub fn pause(&self) {
        self.control.pause();
    }

    /// Lets the guest go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.control.resume();
    }

    /// Sends a signal to the guest's program. Returns whether there was a way to send it: not without a root share, and not
    /// when the guest has stopped reading them.
    pub fn signal(&self, signal: u8) -> bool {
        // It must neither wait for the guest nor raise SIGPIPE in the embedder.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let port = self.wires.signals.upgrade();
        port.is_some_and(|port| rustix::net::send(&*port, &[signal], flags) == Ok(1))
    }

    /// Tells the guest the size of the terminal that its console is.
    pub fn resize(&self, cols: u16, rows: u16) {
        if let Some((console, kick)) = &self.wires.console {
            console.resize(Size { cols, rows });
            kick.wake();
        }
    }

    /// What the vsock device has counted, if there is one.
    #[must_use]
    pub fn vsock_stats(&self) -> Option<&VsockStats> {
        self.wires.vsock.as_deref()
    }
}
