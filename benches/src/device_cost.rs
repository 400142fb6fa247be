//! Attaches and activates one device under the eyes of a tracer: `device-cost KIND`.
//!
//! The markers that it writes to stderr part the trace; see the bench `system_calls`.

use benches::hosts::{kvm_host, vm};
use benches::kinds::{Attached, console, guest, share, vsock};
use benches::trace::mark;
use machine::plan::ServedBy;
use virtio_transport::VirtioDevice;

fn main() {
    let kind = std::env::args().nth(1).unwrap_or_default();
    let folder = tempfile::tempdir().expect("a temporary folder");
    match kind.as_str() {
        "console" => run(ServedBy::Thread, console),
        "share" => run(ServedBy::Vcpu, || share(folder.path())),
        "vsock" => run(ServedBy::Thread, vsock),
        _ => eprintln!("device-cost console|share|vsock"),
    }
}

fn run<D: VirtioDevice + 'static>(served_by: ServedBy, make: impl FnOnce() -> D) {
    let vm = vm().expect("/dev/kvm is there");
    let mut guest = guest();
    mark("attach");
    let mut device = Attached::new(make(), kvm_host(&vm, served_by), &mut guest);
    mark("activate");
    device.activate();
    mark("reset");
    device.reset();
    mark("end");
}
