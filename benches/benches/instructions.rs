//! Instructions of `plan`, and of attaching and activating a device against a recording fake. They repeat exactly.
#![allow(
    missing_docs,
    clippy::exit,
    reason = "gungraun's macros make public functions and a main that exits"
)]

use std::hint::black_box;

use benches::hosts::FakeHost;
use benches::kinds::{Attached, console, guest, share, vsock};
use benches::spec_of;
use gungraun::{library_benchmark, library_benchmark_group, main};
use machine::{Limits, Plan, PlanError, Spec};
use virtio_console::Console;
use virtio_fs::Fs;
use virtio_transport::VirtioDevice;
use virtio_vsock_tsi::Vsock;

type Fake<D> = Attached<D, FakeHost<<D as VirtioDevice>::Worker>>;

fn prepared(devices: usize) -> (Spec, Limits) {
    (spec_of(devices), Limits::bundle())
}

fn attached<D: VirtioDevice>(device: D) -> Fake<D> {
    Attached::new(device, FakeHost::default(), &mut guest())
}

fn shared() -> Fs {
    share(std::path::Path::new("/proc/self"))
}

#[library_benchmark]
#[bench::devices_7(prepared(7))]
#[bench::devices_19(prepared(19))]
#[bench::devices_100(prepared(100))]
fn plan((spec, limits): (Spec, Limits)) -> Result<Plan, PlanError> {
    machine::plan(black_box(&spec), black_box(&limits))
}

#[library_benchmark]
#[bench::it(guest())]
fn attach_console(mut memory: test_guest::Guest) -> Fake<Console> {
    Attached::new(console(), FakeHost::default(), &mut memory)
}

#[library_benchmark]
#[bench::it(guest())]
fn attach_share(mut memory: test_guest::Guest) -> Fake<Fs> {
    Attached::new(shared(), FakeHost::default(), &mut memory)
}

#[library_benchmark]
#[bench::it(guest())]
fn attach_vsock(mut memory: test_guest::Guest) -> Fake<Vsock> {
    Attached::new(vsock(), FakeHost::default(), &mut memory)
}

#[library_benchmark]
#[bench::it(attached(console()))]
fn activate_console(mut device: Fake<Console>) -> Fake<Console> {
    device.activate();
    device
}

#[library_benchmark]
#[bench::it(attached(shared()))]
fn activate_share(mut device: Fake<Fs>) -> Fake<Fs> {
    device.activate();
    device
}

#[library_benchmark]
#[bench::it(attached(vsock()))]
fn activate_vsock(mut device: Fake<Vsock>) -> Fake<Vsock> {
    device.activate();
    device
}

library_benchmark_group!(name = machine_plan, benchmarks = plan);
library_benchmark_group!(name = attach, benchmarks = [attach_console, attach_share, attach_vsock]);
library_benchmark_group!(
    name = activate,
    benchmarks = [activate_console, activate_share, activate_vsock]
);
main!(library_benchmark_groups = [machine_plan, attach, activate]);
