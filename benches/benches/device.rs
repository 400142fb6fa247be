//! Time of attaching one device of each kind, and of activating it, against a recording fake and against KVM.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use benches::hosts::{FakeHost, kvm_host, vm};
use benches::kinds::{Attached, console, guest, share, vsock};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use machine::plan::ServedBy;
use virtio_transport::VirtioDevice;

/// `make` is a fresh device: what `build` does for it and what a driver does with it are measured apart.
fn measure<D: VirtioDevice + 'static>(c: &mut Criterion, kind: &str, served_by: ServedBy, make: impl Fn() -> D) {
    let mut group = c.benchmark_group(format!("device/{kind}"));
    group.bench_function("attach", |b| {
        b.iter_batched_ref(
            guest,
            |guest| Attached::new(make(), FakeHost::default(), guest),
            BatchSize::SmallInput,
        );
    });
    let mut memory = guest();
    let mut fake = Attached::new(make(), FakeHost::default(), &mut memory);
    group.bench_function("activate and reset/fake", |b| {
        b.iter(|| {
            fake.activate();
            fake.reset();
        });
    });
    let [interrupts, starts, stops] = fake.host().asked;
    assert!(
        interrupts == starts && starts == stops,
        "one of each for each activation"
    );
    if let Some(vm) = vm() {
        let mut memory = guest();
        let mut real = Attached::new(make(), kvm_host(&vm, served_by), &mut memory);
        group.bench_function("activate and reset/kvm", |b| {
            b.iter(|| {
                real.activate();
                real.reset();
            });
        });
    } else {
        eprintln!("device/{kind}/activate and reset/kvm: skipped, since /dev/kvm cannot be opened");
    }
    group.finish();
}

fn device(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    measure(c, "console", ServedBy::Thread, console);
    measure(c, "share", ServedBy::Vcpu, || share(folder.path()));
    measure(c, "vsock", ServedBy::Thread, vsock);
}

criterion_group!(benches, device);
criterion_main!(benches);
