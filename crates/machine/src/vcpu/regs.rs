//! Boot registers in KVM's types.

use boot_params::{BootRegisters, DescriptorTable, Segment};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

pub(super) fn general(boot: &BootRegisters) -> kvm_regs {
    kvm_regs {
        rip: boot.rip,
        rsp: boot.rsp,
        rbp: boot.rbp,
        rbx: boot.rbx,
        rsi: boot.rsi,
        rflags: boot.rflags,
        ..kvm_regs::default()
    }
}

/// `reset` is what KVM gave the vCPU at its creation: where its APIC is stays as it is.
pub(super) fn special(reset: kvm_sregs, boot: &BootRegisters) -> kvm_sregs {
    let data = segment(&boot.data);
    kvm_sregs {
        cs: segment(&boot.cs),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(&boot.tr),
        gdt: table(&boot.gdt),
        idt: table(&boot.idt),
        cr0: boot.cr0,
        cr3: boot.cr3,
        cr4: boot.cr4,
        efer: boot.efer,
        ..reset
    }
}

fn segment(segment: &Segment) -> kvm_segment {
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.kind,
        present: segment.present.into(),
        db: segment.big.into(),
        s: segment.code_or_data.into(),
        l: segment.long.into(),
        g: segment.granular.into(),
        ..kvm_segment::default()
    }
}

fn table(table: &DescriptorTable) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        ..kvm_dtable::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_params::{long_mode, pvh};

    #[test]
    fn registers_of_the_64_bit_entry_reach_kvm() {
        let boot = long_mode::registers(0x100_0123);
        let general = general(&boot);
        assert_eq!(
            (general.rip, general.rsi, general.rbx, general.rflags),
            (0x100_0123, 0x7000, 0, 2)
        );
        let special = special(
            kvm_sregs {
                apic_base: 7,
                ..kvm_sregs::default()
            },
            &boot,
        );
        assert_eq!(
            (special.cr0, special.cr3, special.cr4, special.efer),
            (0x8000_0011, 0x9000, 0x20, 0x500)
        );
        assert_eq!(
            (special.gdt.limit, special.idt.base, special.apic_base),
            (0x1f, 0x520, 7)
        );
        let cs = special.cs;
        assert_eq!(
            (cs.selector, cs.type_, cs.l, cs.db, cs.s, cs.g, cs.present),
            (8, 0xb, 1, 0, 1, 1, 1)
        );
        assert_eq!((special.ss, special.gs.selector, special.gs.db), (special.ds, 0x10, 1));
        assert_eq!((special.tr.selector, special.tr.s), (0x18, 0));
    }

    #[test]
    fn registers_of_the_pvh_entry_reach_kvm() {
        let boot = pvh::registers(0x100_0000);
        assert_eq!((general(&boot).rbx, general(&boot).rip), (0x6000, 0x100_0000));
        let special = special(kvm_sregs::default(), &boot);
        assert_eq!((special.cr0, special.cr4, special.cs.db, special.tr.g), (0x11, 0, 1, 0));
    }
}
