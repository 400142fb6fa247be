//! One package, a core for each vCPU, one thread per core; the APIC id is the vCPU's number.

use kvm_bindings::kvm_cpuid_entry2;

use super::{set_field, subleaf};

const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;
const LAST_LEVEL_CACHE: u32 = 3;

/// Which vCPU of how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topology {
    pub(super) index: u32,
    pub(super) count: u32,
}

impl Topology {
    /// Bits of an APIC id that tell cores apart.
    pub(super) fn id_bits(&self) -> u32 {
        self.addressable().trailing_zeros()
    }

    /// APIC ids of the package, those without a vCPU counted: a power of two.
    pub(super) fn addressable(&self) -> u32 {
        self.count.next_power_of_two()
    }

    /// Leaf 0xb or 0x1f: the levels from the thread up to the package, and the empty one that ends the list.
    pub(super) fn levels(&self, leaf: u32) -> [kvm_cpuid_entry2; 3] {
        let level = |index: u32, kind: u32, shift: u32, cpus: u32| {
            subleaf(leaf, index, [shift, cpus, kind << 8 | index, self.index])
        };
        [
            level(0, LEVEL_THREAD, 0, 1),
            level(1, LEVEL_CORE, self.id_bits(), self.count),
            level(2, 0, 0, 0),
        ]
    }

    /// EAX of a cache: how many APIC ids share it. The fields are alike in leaf 4 and in leaf 0x8000001d.
    pub(super) fn share_cache(&self, eax: &mut u32) {
        let level = *eax >> 5 & 7;
        let sharing = if level < LAST_LEVEL_CACHE {
            1
        } else {
            self.addressable()
        };
        set_field(eax, 14, 12, sharing - 1);
    }
}

/// Whether EAX of a cache leaf describes one; the last of the list does not.
pub(super) fn is_cache(eax: u32) -> bool {
    eax & 0x1f != 0
}
