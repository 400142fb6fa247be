//! Finding virtio-console ports by name.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const CLASS: &str = "/sys/class/virtio-ports";

/// The kernel learns of ports by messages that it handles beside us. On a host that answers at all they are there
/// within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where port devices are: their name, and that of their device node.
pub(crate) type Nodes = BTreeMap<String, String>;

/// Waits until all of `wanted` are there. What is missing in the end is the error.
pub(crate) fn wait_for(wanted: &[&str]) -> Result<Nodes, String> {
    let started = Instant::now();
    loop {
        let nodes = nodes_in(Path::new(CLASS));
        let Some(missing) = wanted.iter().find(|name| !nodes.contains_key(**name)) else {
            return Ok(nodes);
        };
        if started.elapsed() > PATIENCE {
            return Err(format!("the console port {missing} did not appear"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Calls `open` until it finds its device; a console's tty appears in the same way as ports do.
pub(crate) fn open_when_there(mut open: impl FnMut() -> io::Result<File>) -> io::Result<File> {
    let started = Instant::now();
    loop {
        match open() {
            Err(error) if started.elapsed() < PATIENCE && is_not_there_yet(&error) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

fn is_not_there_yet(error: &io::Error) -> bool {
    const ENXIO: i32 = 6;
    const ENODEV: i32 = 19;
    error.kind() == io::ErrorKind::NotFound || matches!(error.raw_os_error(), Some(ENXIO | ENODEV))
}

pub(crate) fn open_to_read(nodes: &Nodes, name: &str) -> io::Result<File> {
    open_when_there(|| OpenOptions::new().read(true).open(path_of(nodes, name)?))
}

pub(crate) fn open_to_write(nodes: &Nodes, name: &str) -> io::Result<File> {
    open_when_there(|| OpenOptions::new().write(true).open(path_of(nodes, name)?))
}

fn path_of(nodes: &Nodes, name: &str) -> io::Result<String> {
    nodes
        .get(name)
        .map(|node| format!("/dev/{node}"))
        .ok_or(io::ErrorKind::NotFound.into())
}

fn nodes_in(class: &Path) -> Nodes {
    let Ok(entries) = std::fs::read_dir(class) else {
        return Nodes::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            // A port has no name file until the host has named it.
            let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
            Some((name.trim_end().to_owned(), entry.file_name().into_string().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_name_and_unnamed_ones_left_out() {
        let class = tempfile::tempdir().unwrap();
        for (node, name) in [
            ("vport3p0", None),
            ("vport3p1", Some("tessera-stdin\n")),
            ("vport3p2", Some("other\n")),
        ] {
            std::fs::create_dir(class.path().join(node)).unwrap();
            if let Some(name) = name {
                std::fs::write(class.path().join(node).join("name"), name).unwrap();
            }
        }

        let nodes = nodes_in(class.path());

        assert_eq!(nodes.get("tessera-stdin").unwrap(), "vport3p1");
        assert_eq!(nodes.len(), 2);
    }

    #[test]
    fn kernel_without_ports_has_none() {
        assert_eq!(nodes_in(Path::new("/nonexistent")), Nodes::new());
    }

    #[test]
    fn device_that_appears_late_is_opened() {
        let mut attempts = 0;
        let opened = open_when_there(|| {
            attempts += 1;
            if attempts < 3 {
                Err(io::Error::from_raw_os_error(19))
            } else {
                File::open("/dev/null")
            }
        });
        assert!(opened.is_ok());
        assert_eq!(attempts, 3);
    }

    #[test]
    fn device_that_refuses_is_not_waited_for() {
        let mut attempts = 0;
        let refused = open_when_there(|| {
            attempts += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(attempts, 1);
    }
}
