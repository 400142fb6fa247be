//! Both entries as a whole: what a monitor would write to memory.

use boot_params::{BootConfig, BootImage, BootParamsError, Region, long_mode, pvh, ram_regions};
use proptest::prelude::*;

fn config<'a>(ram: &'a [Region], command_line: &'a [u8]) -> BootConfig<'a> {
    BootConfig {
        entry: 0x100_0000,
        ram,
        command_line,
        initramfs: Some(Region::new(0x300_0000, 0x1000)),
        cpus: 254,
        io_apic_pins: 240,
        setup_header: None,
    }
}

fn assert_no_overlap(image: &BootImage) {
    let mut regions: Vec<Region> = image.blobs.iter().map(|blob| blob.region()).collect();
    regions.sort();
    assert!(
        regions.windows(2).all(|pair| !pair[0].overlaps(&pair[1])),
        "{regions:x?}"
    );
    assert!(
        regions.iter().all(|region| region.len > 0 && region.end() <= 0xa_0000),
        "{regions:x?}"
    );
}

#[test]
fn blobs_of_the_largest_boot_do_not_overlap() {
    let ram = ram_regions(8 << 30).unwrap();
    let command_line = vec![b'x'; 0xffff];
    for image in [
        long_mode::boot_image(&config(&ram, &command_line)),
        pvh::boot_image(&config(&ram, &command_line)),
    ] {
        assert_no_overlap(&image.unwrap());
    }
}

#[test]
fn command_line_ends_with_nul_and_the_zero_page_counts_it() {
    let ram = ram_regions(64 << 20).unwrap();
    let image = long_mode::boot_image(&config(&ram, b"quiet")).unwrap();
    let at = |address| &image.blobs.iter().find(|blob| blob.address == address).unwrap().bytes;
    assert_eq!(at(0x2_0000), b"quiet\0");
    assert_eq!(at(0x7000)[0x238..0x23c], 6_u32.to_le_bytes());
}

#[test]
fn command_line_that_cannot_be_carried_is_refused_by_both_entries() {
    let ram = ram_regions(64 << 20).unwrap();
    let long = vec![b'x'; 0x1_0000];
    let cases: [(&[u8], BootParamsError); 2] = [
        (b"a\0b", BootParamsError::CommandLineHasNul { at: 1 }),
        (
            &long,
            BootParamsError::CommandLineTooLong {
                len: 0x1_0001,
                max: 0x1_0000,
            },
        ),
    ];
    for (command_line, error) in cases {
        assert_eq!(long_mode::boot_image(&config(&ram, command_line)).unwrap_err(), error);
        assert_eq!(pvh::boot_image(&config(&ram, command_line)).unwrap_err(), error);
    }
}

#[test]
fn memory_that_ends_inside_the_boot_structures_is_refused_by_both_entries() {
    let ram = ram_regions(0xf_f000).unwrap();
    let error = BootParamsError::NoRoomForBootData {
        end: 0xf_f000,
        needed: 0x10_0000,
    };
    assert_eq!(long_mode::boot_image(&config(&ram, b"")).unwrap_err(), error);
    assert_eq!(pvh::boot_image(&config(&ram, b"")).unwrap_err(), error);
    assert_eq!(
        pvh::boot_image(&config(&[], b"")).unwrap_err(),
        BootParamsError::NoRoomForBootData {
            end: 0,
            needed: 0x10_0000
        }
    );
}

#[test]
fn pvh_entry_above_4_gib_is_refused() {
    let ram = ram_regions(64 << 20).unwrap();
    let refused = pvh::boot_image(&BootConfig {
        entry: 1 << 32,
        ..config(&ram, b"")
    });
    assert_eq!(
        refused.unwrap_err(),
        BootParamsError::EntryNotReachable { entry: 1 << 32 }
    );
}

proptest! {
    #[test]
    fn boot_images_of_any_size_are_deterministic_and_do_not_overlap(
        mem_mib in 64_u64..=1 << 20, cpus in 1..=254_u32, pins in 1..=240_u32, len in 0..0xffff_usize
    ) {
        let ram = ram_regions(mem_mib << 20).unwrap();
        let command_line = vec![b' '; len];
        let config = BootConfig { cpus, io_apic_pins: pins, ..config(&ram, &command_line) };
        let image = long_mode::boot_image(&config).unwrap();
        assert_no_overlap(&image);
        assert_no_overlap(&pvh::boot_image(&config).unwrap());
        prop_assert_eq!(image, long_mode::boot_image(&config).unwrap());
    }
}
