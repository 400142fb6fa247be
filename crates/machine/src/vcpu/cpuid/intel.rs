//! What only Intel's processors have.

use super::topology::is_cache;
use super::{Table, Topology, set_bit, set_field};

const CACHES: u32 = 4;
const POWER: u32 = 6;
const PERFORMANCE_COUNTERS: u32 = 0xa;

const TURBO_BOOST: u32 = 1 << 1;
const ENERGY_BIAS: u32 = 1 << 3;
const CORES_MAX: u32 = 64;

pub(super) fn adapt(table: &mut Table, topology: &Topology) {
    table.change(CACHES, |entry| {
        if is_cache(entry.eax) {
            topology.share_cache(&mut entry.eax);
            set_field(&mut entry.eax, 26, 6, topology.addressable().min(CORES_MAX) - 1);
        }
    });
    table.change(POWER, |entry| {
        set_bit(&mut entry.eax, TURBO_BOOST, false);
        set_bit(&mut entry.ecx, ENERGY_BIAS, false);
    });
    table.change(PERFORMANCE_COUNTERS, |entry| {
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
    });
}
