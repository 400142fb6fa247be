//! Places the devices named on the command line, or says who is in the way.
//!
//!     cargo run -p tessera-resource-alloc --example place_devices -- console root net0

use resource_alloc::{Layout, ResourceAllocator};

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = (0..20).map(|n| format!("share{n}")).collect();
    }
    for (title, layout) in [
        ("in-kernel", Layout::x86_64_irqchip()),
        ("split", Layout::x86_64_split_irqchip()),
    ] {
        println!("x86_64, {title} irqchip:");
        match ResourceAllocator::new(&layout).allocate_devices(names.clone()) {
            Ok(given) => names.iter().zip(given).for_each(|(name, device)| {
                println!("  {name:<12} IRQ {:<4} MMIO {}", device.irq, device.mmio);
            }),
            Err(error) => println!("  {error}"),
        }
    }
}
