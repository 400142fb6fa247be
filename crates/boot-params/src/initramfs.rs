//! Where the initial RAM file system goes.

use crate::layout::{GAP_START, PAGE_SIZE};
use crate::{BootParamsError, Region};

/// The last address for a kernel that names none, and the highest for any: the boot protocol's own default.
pub const DEFAULT_ADDR_MAX: u32 = 0x37ff_ffff;

/// The place of an initramfs of `size` bytes: as high as the kernel can take it from, on a page, above all that the kernel
/// uses while it starts (`kernel`), and never at an address that the boot protocol's 32-bit fields cannot hold.
///
/// `low_ram_end` is the end of RAM below the 32-bit gap ([`memory::low_end`](crate::memory::low_end)), `addr_max` the last
/// address that the kernel names ([`SetupHeader::initrd_addr_max`](crate::SetupHeader::initrd_addr_max)) or
/// [`DEFAULT_ADDR_MAX`].
///
/// # Errors
/// [`BootParamsError::NoRoomForInitramfs`] if there is no such place.
pub fn place(size: u64, low_ram_end: u64, addr_max: u32, kernel: Region) -> Result<Region, BootParamsError> {
    let high = low_ram_end
        .min(u64::from(addr_max.min(DEFAULT_ADDR_MAX)) + 1)
        .min(GAP_START);
    let low = kernel.end();
    high.checked_sub(size)
        .map(|start| start / PAGE_SIZE * PAGE_SIZE)
        .filter(|start| *start >= low)
        .map(|start| Region::new(start, size))
        .ok_or(BootParamsError::NoRoomForInitramfs { size, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KERNEL: Region = Region::new(0x100_0000, 0x160_0000);

    #[test]
    fn initramfs_in_a_small_guest_ends_at_the_end_of_ram() {
        assert_eq!(
            place(0x2000, 0x800_0000, u32::MAX, KERNEL),
            Ok(Region::new(0x7ff_e000, 0x2000))
        );
    }

    #[test]
    fn initramfs_in_a_large_guest_stays_below_the_default_limit() {
        assert_eq!(
            place(0x1001, 0xd000_0000, 0x7fff_ffff, KERNEL),
            Ok(Region::new(0x37ff_e000, 0x1001))
        );
    }

    #[test]
    fn initramfs_stays_below_the_limit_of_its_kernel() {
        assert_eq!(
            place(0x1000, 0xd000_0000, 0x2fff_ffff, KERNEL),
            Ok(Region::new(0x2fff_f000, 0x1000))
        );
    }

    #[test]
    fn initramfs_that_would_reach_into_the_kernel_is_refused() {
        let low = 0x260_0000;
        assert!(place(0x800_0000 - low, 0x800_0000, u32::MAX, KERNEL).is_ok());
        for size in [0x800_0000 - low + 1, 0x800_0001, u64::MAX] {
            let refused = place(size, 0x800_0000, u32::MAX, KERNEL);
            assert_eq!(
                refused,
                Err(BootParamsError::NoRoomForInitramfs {
                    size,
                    low,
                    high: 0x800_0000
                })
            );
        }
    }

    proptest! {
        #[test]
        fn initramfs_is_always_in_ram_and_out_of_the_kernel(
            size in 0..0x4000_0000_u64, pages in 0..=0xd_0000_u64, addr_max: u32
        ) {
            if let Ok(region) = place(size, pages * PAGE_SIZE, addr_max, KERNEL) {
                prop_assert_eq!((region.len, region.start % PAGE_SIZE), (size, 0));
                prop_assert!(region.start >= KERNEL.end() && region.end() <= pages * PAGE_SIZE);
                prop_assert!(region.end() <= u64::from(addr_max) + 1 && region.end() <= 0x3800_0000);
            }
        }
    }
}
