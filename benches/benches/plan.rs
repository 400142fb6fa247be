//! Time of `plan`. Target: under 100 us for 100 devices.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use benches::spec_of;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use machine::Limits;

fn plan(c: &mut Criterion) {
    let limits = Limits::bundle();
    let mut group = c.benchmark_group("machine/plan");
    for devices in [7, 19, 100] {
        let spec = spec_of(devices);
        assert_eq!(
            machine::plan(&spec, &limits).expect("there is room").devices.len(),
            devices
        );
        group.throughput(Throughput::Elements(devices as u64));
        group.bench_function(BenchmarkId::from_parameter(devices), |b| {
            b.iter_with_large_drop(|| machine::plan(black_box(&spec), black_box(&limits)));
        });
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
