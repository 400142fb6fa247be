//! The kernel of this machine as the driver: a mount whose requests go through virtqueues to the device.

use std::path::Path;
use std::thread::JoinHandle;

use test_guest::{FuseConnection, FuseMount};
use virtio_fs::{FileSystem, Server};

use super::Driver;

/// The largest WRITE and a page.
const MESSAGE: usize = (1 << 20) + 4096;

/// A file system that this machine has mounted.
pub(crate) struct Mounted {
    mount: Option<FuseMount>,
    pump: Option<JoinHandle<Driver>>,
}

impl Mounted {
    /// `None`, with the reason printed, where there is no `/dev/fuse` or no right to mount.
    pub(crate) fn new(mount_point: &Path, file_system: impl FileSystem + 'static) -> Option<Self> {
        let mount = match FuseMount::new(mount_point) {
            Ok(mount) => mount,
            Err(error) => {
                eprintln!("skipped: cannot mount through /dev/fuse: {error}");
                return None;
            }
        };
        let connection = mount.connection();
        let driver = Driver::new(Server::new(Box::new(file_system)));
        let pump = std::thread::spawn(move || pump(driver, &connection));
        Some(Self {
            mount: Some(mount),
            pump: Some(pump),
        })
    }

    /// Unmounts and gives the driver back.
    pub(crate) fn unmount(mut self) -> Driver {
        self.mount = None;
        self.pump.take().unwrap().join().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.mount = None;
        if let Some(pump) = self.pump.take() {
            // A test that fails tells why itself.
            let _ = pump.join();
        }
    }
}

fn pump(mut driver: Driver, connection: &FuseConnection) -> Driver {
    let mut message = vec![0; MESSAGE];
    while let Some(len) = connection.receive(&mut message).unwrap() {
        let reply = driver.send(&message[..len], MESSAGE);
        if !reply.is_empty() {
            connection.send(&reply).unwrap();
        }
    }
    driver
}
