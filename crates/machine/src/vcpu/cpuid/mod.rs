//! What CPUID tells a guest: what KVM can show on this host, with the machine's own topology in it.
//!
//! KVM's answer describes the host: the APIC ids, the number of cores and who shares which cache would be those of the CPU
//! that happened to be asked. Here they become those of the machine: one package, a core for each vCPU, one thread per core,
//! the APIC id the vCPU's number, the last cache shared by all. The numbers that need no vendor are put right for
//! processors of unknown vendors too. There are no performance counters: a machine's KVM has none for it.
//!
//! The table is a plain list. A monitor that wants to hide a feature takes its bit out of what KVM supports before it comes
//! here. The processor's name is left as it is.

mod amd;
mod intel;
mod topology;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use topology::Topology;

const VENDOR: u32 = 0;
const FEATURES: u32 = 1;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
const EXTENDED_FEATURES: u32 = 0x8000_0001;

/// CLFLUSH line size in units of 8 bytes.
const CLFLUSH_QUADWORDS: u32 = 8;
const VMX: u32 = 1 << 5;
/// There is an MSR that says what the performance counters can do (PDCM).
const PERFORMANCE_CAPABILITIES: u32 = 1 << 15;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const HTT: u32 = 1 << 28;
const SVM: u32 = 1 << 2;

/// The table of vCPU `index` of `count`, made from what KVM supports.
pub(super) fn for_vcpu(supported: &[kvm_cpuid_entry2], index: u32, count: u32) -> Vec<kvm_cpuid_entry2> {
    let topology = Topology { index, count };
    let mut table = Table(supported.to_vec());
    common(&mut table, &topology);
    match table.vendor() {
        Vendor::Intel => intel::adapt(&mut table, &topology),
        Vendor::Amd => amd::adapt(&mut table, &topology),
        Vendor::Other => {}
    }
    table.0
}

fn common(table: &mut Table, topology: &Topology) {
    table.change(FEATURES, |entry| {
        set_field(&mut entry.ebx, 8, 8, CLFLUSH_QUADWORDS);
        set_field(&mut entry.ebx, 16, 8, topology.addressable().min(0xff));
        set_field(&mut entry.ebx, 24, 8, topology.index);
        // KVM's local APIC has the deadline timer on every vendor. Without it a guest with no PIT cannot calibrate its timer.
        set_bit(&mut entry.ecx, TSC_DEADLINE, true);
        set_bit(&mut entry.ecx, HYPERVISOR, true);
        set_bit(&mut entry.ecx, VMX | PERFORMANCE_CAPABILITIES, false);
        set_bit(&mut entry.edx, HTT, topology.count > 1);
    });
    table.change(EXTENDED_FEATURES, |entry| set_bit(&mut entry.ecx, SVM, false));
    for leaf in [TOPOLOGY, TOPOLOGY_V2] {
        if table.has(leaf) {
            table.replace(leaf, &topology.levels(leaf));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Intel,
    Amd,
    Other,
}

/// CPUID entries by leaf and subleaf.
struct Table(Vec<kvm_cpuid_entry2>);

impl Table {
    fn vendor(&self) -> Vendor {
        let name = self.0.iter().find(|entry| entry.function == VENDOR).map(|entry| {
            let words = [entry.ebx, entry.edx, entry.ecx];
            words.map(u32::to_le_bytes).concat()
        });
        match name.as_deref() {
            Some(b"GenuineIntel") => Vendor::Intel,
            Some(b"AuthenticAMD" | b"HygonGenuine") => Vendor::Amd,
            _ => Vendor::Other,
        }
    }

    fn has(&self, leaf: u32) -> bool {
        self.0.iter().any(|entry| entry.function == leaf)
    }

    /// Applies `change` to each entry of a leaf.
    fn change(&mut self, leaf: u32, change: impl Fn(&mut kvm_cpuid_entry2)) {
        self.0
            .iter_mut()
            .filter(|entry| entry.function == leaf)
            .for_each(change);
    }

    /// Puts `entries` in the place of all entries of a leaf.
    fn replace(&mut self, leaf: u32, entries: &[kvm_cpuid_entry2]) {
        self.0.retain(|entry| entry.function != leaf);
        self.0.extend_from_slice(entries);
    }
}

/// An entry that is chosen by its leaf alone.
fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..kvm_cpuid_entry2::default()
    }
}

/// An entry that is chosen by its subleaf too.
fn subleaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    kvm_cpuid_entry2 {
        function,
        index,
        flags,
        eax,
        ebx,
        ecx,
        edx,
        ..kvm_cpuid_entry2::default()
    }
}

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    if on { *register |= bit } else { *register &= !bit }
}

/// Sets `width` bits from bit `low` on; `width` is below 32.
fn set_field(register: &mut u32, low: u32, width: u32, value: u32) {
    let mask = (1 << width) - 1;
    *register = *register & !(mask << low) | (value & mask) << low;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONES: [u32; 4] = [u32::MAX; 4];

    fn vendor(name: &[u8; 12]) -> kvm_cpuid_entry2 {
        let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
        leaf(0, [0x20, word(0), word(8), word(4)])
    }

    fn registers(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
        let entry = table
            .iter()
            .find(|entry| (entry.function, entry.index) == (function, index));
        entry.map_or([0xdead; 4], |entry| [entry.eax, entry.ebx, entry.ecx, entry.edx])
    }

    /// What a host of this vendor might show: everything set.
    fn host(name: &[u8; 12]) -> Vec<kvm_cpuid_entry2> {
        let mut table = vec![
            vendor(name),
            leaf(1, ONES),
            leaf(6, ONES),
            leaf(0xa, ONES),
            leaf(0x4000_0000, ONES),
        ];
        for (function, cache_types) in [
            (4, [0x21, 0x22, 0x43, 0x63, 0]),
            (0x8000_001d, [0x21, 0x22, 0x43, 0x63, 0]),
        ] {
            for (index, cache) in (0..).zip(cache_types) {
                table.push(subleaf(
                    function,
                    index,
                    [if cache == 0 { 0 } else { 0xffff_ff00 | cache }, 7, 8, 9],
                ));
            }
        }
        for (function, index) in [(7, 0), (7, 1), (0xb, 0), (0xb, 1), (0x1f, 0)] {
            table.push(subleaf(function, index, ONES));
        }
        table.push(leaf(0x8000_0000, [0x8000_0022, 0, 0, 0]));
        for function in [0x8000_0001, 0x8000_0002, 0x8000_0008, 0x8000_001e] {
            table.push(leaf(function, ONES));
        }
        table
    }

    #[test]
    fn leaf_1_is_that_of_the_vcpu_on_every_vendor() {
        for name in [b"GenuineIntel", b"AuthenticAMD", b"CentaurHauls"] {
            let table = for_vcpu(&host(name), 5, 6);
            let [eax, ebx, ecx, edx] = registers(&table, 1, 0);
            assert_eq!((eax, ebx, edx), (u32::MAX, 0x0508_08ff, u32::MAX));
            assert_eq!(ecx, !(VMX | PERFORMANCE_CAPABILITIES));
        }
    }

    #[test]
    fn leaf_1_gets_the_features_that_kvm_emulates_on_every_host() {
        let mut host = host(b"AuthenticAMD");
        host[1] = leaf(1, [0; 4]);
        assert_eq!(
            registers(&for_vcpu(&host, 0, 1), 1, 0),
            [0, 0x0001_0800, 0x8100_0000, 0]
        );
        assert_eq!(
            registers(&for_vcpu(&host, 1, 2), 1, 0),
            [0, 0x0102_0800, 0x8100_0000, 1 << 28]
        );
    }

    #[test]
    fn leaf_1_with_more_ids_than_it_can_count_says_255() {
        assert_eq!(
            registers(&for_vcpu(&host(b"GenuineIntel"), 253, 254), 1, 0)[1],
            0xfdff_08ff
        );
    }

    #[test]
    fn topology_leaves_are_rebuilt_on_every_vendor() {
        for name in [b"GenuineIntel", b"AuthenticAMD", b"CentaurHauls"] {
            let table = for_vcpu(&host(name), 37, 64);
            for function in [0xb, 0x1f] {
                assert_eq!(registers(&table, function, 0), [0, 1, 0x100, 37]);
                assert_eq!(registers(&table, function, 1), [6, 64, 0x201, 37]);
                assert_eq!(registers(&table, function, 2), [0, 0, 2, 37]);
                assert_eq!(table.iter().filter(|entry| entry.function == function).count(), 3);
            }
        }
    }

    #[test]
    fn topology_leaves_that_the_host_lacks_are_not_made_up() {
        let bare = [vendor(b"GenuineIntel"), leaf(1, ONES)];
        assert_eq!(for_vcpu(&bare, 0, 2).len(), 2);
    }

    #[test]
    fn intel_leaves_follow_the_table() {
        let table = for_vcpu(&host(b"GenuineIntel"), 3, 6);
        let own = |level: u32| 0x1c00_0000 | 0x3f00 | level;
        assert_eq!(registers(&table, 4, 0), [own(0x21), 7, 8, 9], "level 1 is of one core");
        assert_eq!(registers(&table, 4, 2), [own(0x43), 7, 8, 9], "level 2 is of one core");
        assert_eq!(
            registers(&table, 4, 3),
            [own(0x63) | 7 << 14, 7, 8, 9],
            "level 3 is of all"
        );
        assert_eq!(registers(&table, 4, 4), [0, 7, 8, 9], "no cache stays none");
        assert_eq!(registers(&table, 6, 0), [!2, u32::MAX, !8, u32::MAX]);
        assert_eq!(registers(&table, 0xa, 0), [0; 4]);
        assert_eq!(registers(&table, 7, 0), ONES);
        assert_eq!(registers(&table, 0x8000_0000, 0), [0x8000_0022, 0, 0, 0]);
        assert_eq!(registers(&table, 0x8000_0002, 0), ONES);
        assert_eq!(registers(&table, 0x8000_0008, 0), ONES);
    }

    #[test]
    fn intel_core_count_stays_in_its_field() {
        assert_eq!(
            registers(&for_vcpu(&host(b"GenuineIntel"), 0, 64), 4, 3)[0],
            0xfc00_0000 | 63 << 14 | 0x3f63
        );
        assert_eq!(
            registers(&for_vcpu(&host(b"GenuineIntel"), 0, 254), 4, 3)[0],
            0xfc00_0000 | 255 << 14 | 0x3f63
        );
        assert_eq!(registers(&for_vcpu(&host(b"GenuineIntel"), 0, 1), 4, 3)[0], 0x3f63);
    }

    #[test]
    fn amd_leaves_follow_the_table() {
        for name in [b"AuthenticAMD", b"HygonGenuine"] {
            let table = for_vcpu(&host(name), 3, 6);
            assert_eq!(registers(&table, 7, 0)[3], !(1 << 29));
            assert_eq!(registers(&table, 7, 1), ONES);
            assert_eq!(registers(&table, 0x8000_0000, 0), [0x8000_001f, 0, 0, 0]);
            let counters = 1 << 23 | 1 << 24 | 1 << 28;
            assert_eq!(registers(&table, 0x8000_0001, 0)[2], !(SVM | counters));
            assert_eq!(registers(&table, 0x8000_0008, 0)[2], 0xffff_3f05);
            assert_eq!(registers(&table, 0x8000_001d, 2)[0], 0xfc00_3f43);
            assert_eq!(registers(&table, 0x8000_001d, 3)[0], 0xfc00_3f63 | 7 << 14);
            assert_eq!(registers(&table, 0x8000_001e, 0), [3, 3, 0, 0]);
            assert_eq!(registers(&table, 0xa, 0), ONES, "leaf 10 means nothing here");
        }
    }

    #[test]
    fn amd_without_topology_extensions_gets_them() {
        let bare = [
            vendor(b"AuthenticAMD"),
            leaf(0x8000_0000, [0x8000_000a, 0, 0, 0]),
            leaf(0x8000_0001, [0; 4]),
        ];
        let table = for_vcpu(&bare, 1, 2);
        assert_eq!(registers(&table, 0x8000_0001, 0)[2], 1 << 22);
        assert_eq!(registers(&table, 0x8000_001e, 0), [1, 1, 0, 0]);
    }

    #[test]
    fn nested_virtualisation_is_hidden_and_kvm_itself_is_not() {
        for name in [b"GenuineIntel", b"AuthenticAMD", b"CentaurHauls"] {
            let table = for_vcpu(&host(name), 0, 1);
            assert_eq!(registers(&table, 1, 0)[2] & VMX, 0);
            assert_eq!(registers(&table, 0x8000_0001, 0)[2] & SVM, 0);
            assert_eq!(registers(&table, 0x4000_0000, 0), ONES);
        }
    }

    proptest! {
        #[test]
        fn tables_of_one_machine_differ_in_the_id_only(count in 1..=254_u32, a in 0..254_u32, b in 0..254_u32) {
            let (a, b) = (a % count, b % count);
            for name in [b"GenuineIntel", b"AuthenticAMD", b"CentaurHauls"] {
                let host = host(name);
                let without_id = |index| {
                    let mut table = for_vcpu(&host, index, count);
                    for entry in &mut table {
                        match entry.function {
                            1 => entry.ebx &= 0x00ff_ffff,
                            0xb | 0x1f => entry.edx = 0,
                            0x8000_001e => (entry.eax, entry.ebx) = (0, 0),
                            _ => {}
                        }
                    }
                    table
                };
                prop_assert_eq!(without_id(a), without_id(b));
            }
        }

        #[test]
        fn ids_of_all_vcpus_fit_into_the_package(count in 1..=254_u32) {
            let table = for_vcpu(&host(b"GenuineIntel"), count - 1, count);
            let [shift, cpus, _, id] = registers(&table, 0xb, 1);
            prop_assert_eq!((cpus, id), (count, count - 1));
            prop_assert_eq!(id >> shift, 0);
        }
    }
}
