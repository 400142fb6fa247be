//! How far the guest's kernel reads ahead in a share.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sys::{self, FUSE_SUPER_MAGIC};

/// What one request to a share carries at the most. The kernel's own choice, meant for disks, is an eighth.
const KIB: &str = "1024";

/// Lets whoever reads a file of the share at `mount_point` from start to end wait for fewer requests. Nothing depends on it,
/// so a kernel that refuses keeps its own choice.
pub(crate) fn widen(mount_point: &Path) {
    // A share answers this only once it has told the kernel how far to read ahead at most.
    if !sys::file_system_magic(mount_point).is_ok_and(|magic| magic == FUSE_SUPER_MAGIC) {
        return;
    }
    let _ = setting_of(mount_point).and_then(|setting| fs::write(setting, KIB));
}

fn setting_of(mount_point: &Path) -> io::Result<String> {
    let (major, minor) = numbers(fs::metadata(mount_point)?.dev());
    Ok(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"))
}

/// Of a device number as stat(2) gives it (makedev(3)).
fn numbers(device: u64) -> (u64, u64) {
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & 0xffff_ff00;
    (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_number_is_taken_apart_as_makedev_puts_it_together() {
        assert_eq!(numbers(0x0000_0000_0000_0014), (0, 20));
        assert_eq!(numbers(0x0000_0000_0010_0814), (8, 0x114));
        assert_eq!(numbers(0xab123456cde78), (0xabcde, 0x1234_5678));
    }

    #[test]
    fn what_is_no_share_is_left_alone() {
        widen(Path::new("/proc"));
        widen(Path::new("/nonexistent"));
    }
}
