//! Which files can be read by somebody who must not wait for a disk.
//!
//! Most file systems of Linux can be asked to read only what is in memory (`RWF_NOWAIT`). Those that cannot are known here by
//! their device: some have nothing but memory, and the others have to be left to somebody who has time.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FsWord;
use vm_memory::GuestMemoryBackend;

use crate::Source;
use crate::sys::{self, Span};

/// File systems that are remembered. With more in one share, the one that was found first is looked at again.
const MAX_DEVICES: usize = 16;

/// `f_type` of `statfs(2)`, as in Linux's `magic.h`.
const IN_MEMORY: [FsWord; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
];

/// How to read from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Ask for what is in memory.
    AskForCached,
    /// All of it is in memory.
    Read,
    /// Not without waiting, perhaps.
    Leave,
}

/// What is known of the file systems that cannot be asked.
#[derive(Debug, Default)]
pub(crate) struct CachedReads {
    devices: Vec<(u64, Way)>,
    oldest: usize,
}

impl CachedReads {
    /// For a file on `device` (`st_dev`).
    #[inline]
    fn way(&self, device: u64) -> Way {
        let known = self.devices.iter().find(|(known, _)| *known == device);
        known.map_or(Way::AskForCached, |(_, way)| *way)
    }

    /// For a file whose file system cannot be asked, on `device` if that is known.
    #[cold]
    fn way_without_asking(&mut self, file: BorrowedFd<'_>, device: Option<u64>) -> io::Result<Way> {
        let device = match device {
            Some(device) => device,
            None => rustix::fs::fstat(file)?.st_dev,
        };
        match self.way(device) {
            Way::AskForCached => {
                let way = way_of(rustix::fs::fstatfs(file)?.f_type);
                self.remember(device, way);
                Ok(way)
            }
            way => Ok(way),
        }
    }

    /// Reads only what is in memory: EAGAIN where it is not, or where that cannot be known.
    pub(crate) fn read<M: GuestMemoryBackend>(
        &mut self,
        from: Source<'_>,
        mem: &M,
        span: &Span<'_>,
    ) -> io::Result<usize> {
        let mut way = from.device.map_or(Way::AskForCached, |device| self.way(device));
        if way == Way::AskForCached {
            match sys::read_cached_into(from.file, from.at, mem, span) {
                Err(error) if sys::is_unsupported(&error) => way = self.way_without_asking(from.file, from.device)?,
                read => return read,
            }
        }
        match way {
            Way::Read => sys::read_into(from.file, from.at, mem, span),
            Way::AskForCached | Way::Leave => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn remember(&mut self, device: u64, way: Way) {
        if self.devices.len() < MAX_DEVICES {
            self.devices.push((device, way));
        } else if let Some(oldest) = self.devices.get_mut(self.oldest) {
            *oldest = (device, way);
            self.oldest = (self.oldest + 1) % MAX_DEVICES;
        }
    }
}

fn way_of(f_type: FsWord) -> Way {
    if IN_MEMORY.contains(&f_type) {
        Way::Read
    } else {
        Way::Leave
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn file_systems_that_are_memory_are_read_and_others_left() {
        for (f_type, way) in [
            (0x0102_1994, Way::Read),
            (0x8584_58f6, Way::Read),
            (0xef53, Way::Leave),
            (0x794c_7630, Way::Leave),
            (0x6969, Way::Leave),
        ] {
            assert_eq!(way_of(f_type), way, "{f_type:#x}");
        }
    }

    #[test]
    fn device_is_looked_at_once_and_does_not_speak_for_others() {
        let mut reads = CachedReads::default();
        assert_eq!(reads.way(1), Way::AskForCached);
        reads.remember(1, Way::Read);
        reads.remember(2, Way::Leave);
        // Whatever is there, the device is known.
        let any = std::fs::File::open("/dev/shm").unwrap();
        assert_eq!(reads.way_without_asking(any.as_fd(), Some(2)).unwrap(), Way::Leave);
        assert_eq!(reads.way(1), Way::Read);
        assert_eq!(reads.way(3), Way::AskForCached);
    }

    #[test]
    fn any_number_of_devices_takes_a_bounded_table() {
        let mut reads = CachedReads::default();
        for device in 0..100 {
            reads.remember(device, Way::Leave);
            assert_eq!(reads.way(device), Way::Leave);
        }
        assert_eq!(reads.devices.len(), MAX_DEVICES);
        assert_eq!(reads.way(0), Way::AskForCached);
        assert_eq!(reads.way(85), Way::Leave);
    }
}
