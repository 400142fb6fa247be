//! A guest and a host that do anything in any order: see the model that the property tests of the crate share.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/vsock-proto/tests/model/mod.rs"]
mod model;

fuzz_target!(|choices: &[u8]| model::run(choices));
