//! Guest memory that remembers where it found the last address is the same memory.

use proptest::prelude::*;
use test_guest::Guest;
use virtio_ring::Nearby;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// Two that touch, a gap, and one more.
const REGIONS: [(u64, usize); 3] = [(0x1000, 0x1000), (0x2000, 0x1000), (0x8000, 0x1000)];

proptest! {
    #[test]
    fn nearby_finds_what_the_memory_finds_whatever_was_asked_before(
        addresses in prop::collection::vec(prop_oneof![0..0xa000_u64, any::<u64>()], 1..60),
    ) {
        let guest = Guest::with_regions(&REGIONS);
        let nearby = Nearby::new(guest.mem());
        for addr in addresses.into_iter().map(GuestAddress) {
            let expected = guest.mem().find_region(addr).map(GuestMemoryRegion::start_addr);
            let found = nearby.find_region(addr).map(GuestMemoryRegion::start_addr);
            prop_assert_eq!(found, expected, "{:#x}", addr.0);
        }
    }
}

#[test]
fn nearby_has_the_regions_and_the_bytes_of_the_memory() {
    let guest = Guest::with_regions(&REGIONS);
    let nearby = Nearby::new(guest.mem());

    guest.mem().write_slice(b"across", GuestAddress(0x1ffd)).unwrap();
    let mut seen = [0; 6];
    nearby.read_slice(&mut seen, GuestAddress(0x1ffd)).unwrap();

    assert_eq!(&seen, b"across");
    assert_eq!(nearby.num_regions(), 3);
    assert_eq!(nearby.last_addr(), GuestAddress(0x8fff));
    assert!(nearby.read_slice(&mut seen, GuestAddress(0x2ffd)).is_err());
}
