//! The 64-bit entry of the Linux boot protocol: paging is on, RSI points at the zero page.

use crate::boot::{check_room, command_line};
use crate::layout::{IDENTITY_MAPPED, PML4, STACK, ZERO_PAGE};
use crate::registers::{CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RFLAGS_RESERVED};
use crate::zero_page::ZeroPage;
use crate::{BootConfig, BootImage, BootParamsError, BootRegisters, e820, gdt, mptable, paging, zero_page};

/// All that a kernel needs that is entered in 64-bit mode.
///
/// # Errors
/// A [`BootParamsError`] that says which part of `config` cannot be carried out.
pub fn boot_image(config: &BootConfig<'_>) -> Result<BootImage, BootParamsError> {
    check_room(config.ram)?;
    if config.entry >= IDENTITY_MAPPED {
        return Err(BootParamsError::EntryNotMapped { entry: config.entry });
    }
    let command_line = command_line(config.command_line)?;
    let zero_page = zero_page(&ZeroPage {
        e820: &e820(config.ram),
        cmdline_size: u32::try_from(command_line.bytes.len()).unwrap_or(u32::MAX),
        initramfs: config.initramfs,
        setup_header: config.setup_header,
    })?;
    let mut blobs = gdt::tables(&gdt::CODE64, &gdt::TSS64);
    blobs.extend(paging::identity_map());
    blobs.extend(mptable(config.cpus, config.io_apic_pins)?);
    blobs.push(command_line);
    blobs.push(zero_page);
    Ok(BootImage {
        blobs,
        registers: registers(config.entry),
    })
}

/// The registers of a vCPU that starts at `entry` in 64-bit mode.
pub fn registers(entry: u64) -> BootRegisters {
    BootRegisters {
        rip: entry,
        rsp: STACK,
        rbp: STACK,
        rsi: ZERO_PAGE,
        rflags: RFLAGS_RESERVED,
        cs: gdt::CODE64,
        data: gdt::DATA,
        tr: gdt::TSS64,
        gdt: gdt::GDTR,
        idt: gdt::IDTR,
        cr0: CR0_PE | CR0_ET | CR0_PG,
        cr3: PML4,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        ..BootRegisters::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram_regions;

    #[test]
    fn registers_of_the_64_bit_entry_are_the_protocol_ones() {
        let registers = registers(0x100_0123);
        assert_eq!((registers.rip, registers.rsi), (0x100_0123, 0x7000));
        assert_eq!((registers.rsp, registers.rbp, registers.rflags), (0x8ff0, 0x8ff0, 2));
        assert_eq!(
            (registers.cr0, registers.cr3, registers.cr4),
            (0x8000_0011, 0x9000, 0x20)
        );
        assert_eq!(registers.efer, 0x500);
        assert_eq!((registers.gdt.base, registers.gdt.limit), (0x500, 0x1f));
        assert_eq!((registers.idt.base, registers.idt.limit), (0x520, 7));
        let cs = registers.cs;
        assert_eq!(
            (cs.selector, cs.kind, cs.long, cs.big, cs.granular, cs.limit),
            (8, 0xb, true, false, true, u32::MAX)
        );
        let data = registers.data;
        assert_eq!((data.selector, data.kind, data.long, data.big), (0x10, 3, false, true));
        assert_eq!(
            (registers.tr.selector, registers.tr.kind, registers.tr.code_or_data),
            (0x18, 0xb, false)
        );
    }

    #[test]
    fn entry_outside_the_identity_map_is_refused() {
        let ram = ram_regions(4 << 30).unwrap();
        let config = |entry| BootConfig {
            entry,
            ram: &ram,
            command_line: b"",
            initramfs: None,
            cpus: 1,
            io_apic_pins: 24,
            setup_header: None,
        };
        assert!(boot_image(&config(0x3fff_ffff)).is_ok());
        let refused = boot_image(&config(0x4000_0000));
        assert_eq!(refused, Err(BootParamsError::EntryNotMapped { entry: 0x4000_0000 }));
    }
}
