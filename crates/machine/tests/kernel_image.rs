//! The published bundle, if there is one: `TESSERA_KERNEL` names it.

use std::path::Path;

use boot_params::Region;
use machine::kernel::{BootProtocol, KernelImage};
use machine::limits::KernelTraits;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

#[test]
fn published_bundle_is_known_and_loads() {
    let Some(path) = std::env::var_os("TESSERA_KERNEL") else {
        return eprintln!("skipped: TESSERA_KERNEL names no kernel bundle");
    };
    let image = KernelImage::open(Path::new(&path)).unwrap();
    assert_eq!(*image.traits(), KernelTraits::bundle());

    let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    let entry = image.load(&mem).unwrap();
    assert_eq!((entry.address, entry.protocol), (0x100_0123, BootProtocol::LongMode));
    assert_eq!(entry.footprint, Region::new(0x100_0000, 0x160_0000));

    let mapping = image.bundle_mapping().unwrap().unwrap();
    assert_eq!(
        (mapping.offset, mapping.len, mapping.gpa),
        (0x1_0000, 0x149_0000, 0x100_0000)
    );
    let mut from_file = vec![0; usize::try_from(mapping.len).unwrap()];
    std::os::unix::fs::FileExt::read_exact_at(&mapping.file, &mut from_file, mapping.offset).unwrap();
    let mut from_memory = vec![0; from_file.len()];
    mem.read_slice(&mut from_memory, GuestAddress(mapping.gpa)).unwrap();
    assert!(from_file == from_memory, "what is copied is what would be mapped");
}
