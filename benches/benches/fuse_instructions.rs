//! Instructions that a share takes for a FUSE request, from the ring to the ring and without the kernel's. They repeat exactly.
//!
//! The tool that counts has no `openat2`, so OPEN and CREATE are counted with the `openat` that stands in for it.
#![allow(
    missing_docs,
    clippy::exit,
    reason = "gungraun's macros make public functions and a main that exits"
)]

use benches::fuse::{Kind, Queued};
use gungraun::{library_benchmark, library_benchmark_group, main};

#[library_benchmark]
#[bench::lookup_first(Queued::new(Kind::LookupFirst, 1))]
#[bench::lookup_again(Queued::new(Kind::LookupAgain, 1))]
#[bench::getattr(Queued::new(Kind::Getattr, 1))]
#[bench::open(Queued::new(Kind::Open, 1))]
#[bench::read_4k(Queued::new(Kind::Read, 1))]
#[bench::read_1m(Queued::new(Kind::ReadLarge, 1))]
#[bench::read_1m_scattered(Queued::new(Kind::ReadScattered, 1))]
#[bench::release(Queued::new(Kind::Release, 1))]
#[bench::create(Queued::new(Kind::Create, 1))]
#[bench::readdirplus_1000(Queued::new(Kind::Readdirplus, 1))]
#[bench::forget(Queued::new(Kind::Forget, 1))]
fn request(mut queued: Queued) -> Queued {
    queued.process();
    queued
}

library_benchmark_group!(name = fuse, benchmarks = request);
main!(library_benchmark_groups = fuse);
