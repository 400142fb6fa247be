//! A FUSE server under test behind the `/dev/fuse` of this machine's kernel.
//!
//! The kernel is then the guest: programs use the mount, the bridge hands their requests to whatever the test passes
//! them to. It takes root, or CAP_SYS_ADMIN, and the device.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// A mounted file system whose requests are read here. Unmounted when it is dropped.
#[derive(Debug)]
pub struct FuseMount {
    device: Arc<OwnedFd>,
    folder: PathBuf,
}

/// The end of the connection that requests come out of. It can move to another thread.
#[derive(Debug, Clone)]
pub struct FuseConnection {
    device: Arc<OwnedFd>,
}

impl FuseMount {
    /// Mounts on a folder that exists.
    ///
    /// # Errors
    /// When there is no `/dev/fuse` or no right to mount.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let device = rustix::fs::open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let target = CString::new(folder.as_os_str().as_bytes())?;
        rustix::mount::mount(
            c"test",
            &target,
            c"fuse",
            MountFlags::empty(),
            Some(CString::new(options)?.as_c_str()),
        )?;
        Ok(Self {
            device: Arc::new(device),
            folder: folder.into(),
        })
    }

    /// Where requests come out.
    #[must_use]
    pub fn connection(&self) -> FuseConnection {
        FuseConnection {
            device: Arc::clone(&self.device),
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        // A test that leaves files open leaves them to the kernel.
        let _ = rustix::mount::unmount(self.folder.as_os_str().as_bytes(), UnmountFlags::DETACH);
    }
}

impl FuseConnection {
    /// Waits for a request and puts it into `buffer`, which has room for the largest WRITE and a page more. Gives its
    /// length, or `None` when the file system was unmounted.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::io::read(self.device.as_fd(), &mut *buffer) {
                Ok(len) => return Ok(Some(len)),
                // The request was taken back before we got it.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NODEV) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for a request, at most so many milliseconds. False when none came.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn wait(&self, milliseconds: u32) -> io::Result<bool> {
        let timeout = rustix::time::Timespec {
            tv_sec: i64::from(milliseconds / 1000),
            tv_nsec: i64::from(milliseconds % 1000) * 1_000_000,
        };
        let mut fds = [rustix::event::PollFd::new(&*self.device, rustix::event::PollFlags::IN)];
        Ok(rustix::event::poll(&mut fds, Some(&timeout))? > 0)
    }

    /// Answers a request.
    ///
    /// # Errors
    /// As `write(2)`; EINVAL for a reply that the kernel cannot make sense of.
    pub fn send(&self, reply: &[u8]) -> io::Result<()> {
        match rustix::io::write(self.device.as_fd(), reply) {
            // Nobody waits for it any more.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
