//! What only AMD's processors have, and Hygon's after them.

use super::topology::is_cache;
use super::{EXTENDED_FEATURES, Table, Topology, leaf, set_bit, set_field};

const STRUCTURED_FEATURES: u32 = 7;
const EXTENDED_MAX: u32 = 0x8000_0000;
const SIZES: u32 = 0x8000_0008;
const CACHES: u32 = 0x8000_001d;
const PROCESSOR_TOPOLOGY: u32 = 0x8000_001e;

/// The last leaf that is looked after here.
const EXTENDED_LAST: u32 = 0x8000_001f;
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
/// Of the core, of the north bridge and of the last cache.
const PERFORMANCE_COUNTERS: u32 = 1 << 23 | 1 << 24 | 1 << 28;
/// An Intel feature that KVM emulates and AMD's kernels do not expect.
const ARCH_CAPABILITIES: u32 = 1 << 29;

pub(super) fn adapt(table: &mut Table, topology: &Topology) {
    table.change(STRUCTURED_FEATURES, |entry| {
        if entry.index == 0 {
            set_bit(&mut entry.edx, ARCH_CAPABILITIES, false);
        }
    });
    table.change(EXTENDED_MAX, |entry| entry.eax = EXTENDED_LAST);
    table.change(EXTENDED_FEATURES, |entry| {
        set_bit(&mut entry.ecx, TOPOLOGY_EXTENSIONS, true);
        set_bit(&mut entry.ecx, PERFORMANCE_COUNTERS, false);
    });
    table.change(SIZES, |entry| {
        set_field(&mut entry.ecx, 0, 8, topology.count - 1);
        set_field(&mut entry.ecx, 12, 4, topology.id_bits());
    });
    table.change(CACHES, |entry| {
        if is_cache(entry.eax) {
            topology.share_cache(&mut entry.eax);
        }
    });
    let core = topology.index;
    let one_node = 0;
    table.replace(
        PROCESSOR_TOPOLOGY,
        &[leaf(PROCESSOR_TOPOLOGY, [topology.index, core, one_node, 0])],
    );
}
