//! Prints what a guest of the given size is booted with: `cargo run --example boot_data -- 4096 2`.

use boot_params::{BootConfig, BootParamsError, e820, long_mode, ram_regions};

fn main() -> Result<(), BootParamsError> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u32>().unwrap_or(0));
    let mem_mib = numbers.next().unwrap_or(512);
    let cpus = numbers.next().unwrap_or(1);

    let ram = ram_regions(u64::from(mem_mib) << 20)?;
    println!("memory map of {mem_mib} MiB:");
    for entry in e820(&ram) {
        println!(
            "  {:#012x} - {:#012x} {:?}",
            entry.region.start,
            entry.region.end(),
            entry.kind
        );
    }

    let image = long_mode::boot_image(&BootConfig {
        entry: 0x100_0123,
        ram: &ram,
        command_line: b"console=hvc0 reboot=k panic=-1",
        initramfs: None,
        cpus,
        io_apic_pins: 24,
        setup_header: None,
    })?;
    println!("written to memory:");
    for blob in &image.blobs {
        println!("  {:#08x}: {:5} bytes", blob.address, blob.bytes.len());
    }
    println!("registers: {:#x?}", image.registers);
    Ok(())
}
