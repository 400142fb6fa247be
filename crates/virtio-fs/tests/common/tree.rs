//! Lists of operations, done once through the device and once on a folder of the host, which is the model.
//!
//! What the driver remembers of a file is a node ID; what the model remembers is a descriptor. Both are used long after
//! names have moved, so the device's idea of where things are is tried as a guest's kernel would.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::message::op;
use super::queue::Driver;

/// Bytes that one operation takes.
pub(crate) const OP_LEN: usize = 5;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const ESTALE: i32 = 116;

/// A file as both sides know it.
struct Known {
    node: u64,
    model: OwnedFd,
}

/// The model says whether it worked, and what came out.
type Outcome = Result<Vec<u8>, i32>;

pub(crate) struct Tree<'a> {
    driver: &'a mut Driver,
    known: Vec<Known>,
    /// Regular files may not be found again once their last name, or a name of several, is gone.
    forgetful: bool,
}

fn path_fd(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        folder,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn data_fd(fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    rustix::fs::open(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn kind(fd: &OwnedFd) -> FileType {
    FileType::from_raw_mode(rustix::fs::fstat(fd).unwrap().st_mode)
}

fn done<T>(result: Result<T, Errno>) -> Outcome {
    result.map(|_| Vec::new()).map_err(Errno::raw_os_error)
}

impl<'a> Tree<'a> {
    /// `driver` has mounted an empty folder; `model` is one too. `forgetful` back-ends keep no file handles.
    pub(crate) fn new(driver: &'a mut Driver, model: &std::path::Path, forgetful: bool) -> Self {
        let model = rustix::fs::open(model, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Self {
            driver,
            known: vec![Known {
                node: super::queue::ROOT_NODE,
                model,
            }],
            forgetful,
        }
    }

    /// Runs a list of operations; each must come out alike.
    pub(crate) fn run(&mut self, bytes: &[u8]) {
        for operation in bytes.chunks_exact(OP_LEN) {
            if !self.step(operation) {
                return;
            }
        }
    }

    /// False when the two have parted: the model could do what the device has an excuse not to do.
    fn step(&mut self, operation: &[u8]) -> bool {
        let [what, one, other, name, value] = *operation else {
            return false;
        };
        let one = usize::from(one) % self.known.len();
        let other = usize::from(other) % self.known.len();
        let (first, second) = (NAMES[usize::from(name) % 4], NAMES[usize::from(name / 4) % 4]);
        let (ours, theirs) = match what % 12 {
            0 => self.lookup(one, first),
            1 => self.make_folder(one, first),
            2 => self.make_file(one, first),
            3 => self.make_link(one, first, second),
            4 => self.unlink(one, first),
            5 => self.rmdir(one, first),
            6 => self.rename((one, first), (other, second), u32::from(value % 3)),
            7 => self.link(one, other, first),
            8 => self.write(one, value),
            9 => self.read(one),
            10 => self.mode(one, u32::from(value)),
            _ => self.list(one),
        };
        if ours == theirs {
            return true;
        }
        let excused = self.excused(&ours, &[one, other]);
        assert!(
            excused,
            "operation {operation:?} on {one} and {other}: {ours:?}, and the model {theirs:?}"
        );
        theirs.is_err()
    }

    /// A regular file without names, or one of several names, cannot always be found again.
    fn excused(&self, ours: &Outcome, involved: &[usize]) -> bool {
        let lost = |index: &usize| {
            let stat = rustix::fs::fstat(&self.known[*index].model).unwrap();
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            is_file && (stat.st_nlink == 0 || self.forgetful)
        };
        *ours == Err(ESTALE) && involved.iter().any(lost)
    }

    fn know(&mut self, node: u64, model: OwnedFd) {
        if self.known.len() < 40 {
            self.known.push(Known { node, model });
        } else {
            self.driver.forget(node, 1);
        }
    }

    fn lookup(&mut self, at: usize, name: &str) -> (Outcome, Outcome) {
        let ours = self.driver.lookup(self.known[at].node, name.as_bytes());
        let theirs = path_fd(&self.known[at].model, name);
        let outcomes = (
            ours.clone().map(|_| Vec::new()),
            done(theirs.as_ref().map_err(|error| *error)),
        );
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            self.know(ours.node(), theirs);
        }
        outcomes
    }

    fn make_folder(&mut self, at: usize, name: &str) -> (Outcome, Outcome) {
        let ours = self.driver.mkdir(self.known[at].node, name.as_bytes(), 0o700);
        let theirs = rustix::fs::mkdirat(&self.known[at].model, name, Mode::from(0o700));
        self.made(at, name, ours.map(|entry| entry.node()), theirs)
    }

    fn make_file(&mut self, at: usize, name: &str) -> (Outcome, Outcome) {
        let ours = self
            .driver
            .create(self.known[at].node, name.as_bytes(), 0o600, libc::O_RDWR | libc::O_EXCL);
        let ours = ours.map(|(entry, handle)| {
            self.driver.release(entry.node(), handle);
            entry.node()
        });
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let theirs = rustix::fs::openat(&self.known[at].model, name, flags, Mode::from(0o600));
        self.made(at, name, ours, theirs.map(drop))
    }

    fn make_link(&mut self, at: usize, name: &str, target: &str) -> (Outcome, Outcome) {
        let ours = self
            .driver
            .symlink(self.known[at].node, name.as_bytes(), target.as_bytes());
        let theirs = rustix::fs::symlinkat(target, &self.known[at].model, name);
        self.made(at, name, ours.map(|entry| entry.node()), theirs)
    }

    fn made(&mut self, at: usize, name: &str, ours: Result<u64, i32>, theirs: Result<(), Errno>) -> (Outcome, Outcome) {
        if let (Ok(node), Ok(())) = (ours, theirs) {
            let model = path_fd(&self.known[at].model, name).unwrap();
            self.know(node, model);
        }
        (ours.map(|_| Vec::new()), done(theirs))
    }

    fn unlink(&mut self, at: usize, name: &str) -> (Outcome, Outcome) {
        let theirs = rustix::fs::unlinkat(&self.known[at].model, name, AtFlags::empty());
        let ours = self.driver.unlink(self.known[at].node, name.as_bytes());
        (ours.map(|()| Vec::new()), done(theirs))
    }

    fn rmdir(&mut self, at: usize, name: &str) -> (Outcome, Outcome) {
        let theirs = rustix::fs::unlinkat(&self.known[at].model, name, AtFlags::REMOVEDIR);
        let ours = self.driver.rmdir(self.known[at].node, name.as_bytes());
        (ours.map(|()| Vec::new()), done(theirs))
    }

    fn rename(&mut self, from: (usize, &str), to: (usize, &str), flags: u32) -> (Outcome, Outcome) {
        let (one, other) = (&self.known[from.0], &self.known[to.0]);
        let model_flags = RenameFlags::from_bits_retain(flags);
        let theirs = rustix::fs::renameat_with(&one.model, from.1, &other.model, to.1, model_flags);
        let ours = self
            .driver
            .rename((one.node, from.1.as_bytes()), (other.node, to.1.as_bytes()), flags);
        (ours.map(|()| Vec::new()), done(theirs))
    }

    fn link(&mut self, file: usize, at: usize, name: &str) -> (Outcome, Outcome) {
        let (file, folder) = (&self.known[file], &self.known[at]);
        if kind(&file.model) == FileType::Directory {
            return (Ok(Vec::new()), Ok(Vec::new()));
        }
        let flags = AtFlags::EMPTY_PATH;
        let theirs = rustix::fs::linkat(&file.model, "", &folder.model, name, flags);
        if theirs == Err(Errno::PERM) || theirs == Err(Errno::NOENT) {
            // Without CAP_DAC_READ_SEARCH, or the file has no name left.
            return (Ok(Vec::new()), Ok(Vec::new()));
        }
        let ours = self.driver.link(file.node, folder.node, name.as_bytes());
        if let Ok(entry) = &ours {
            self.driver.forget(entry.node(), 1);
        }
        (ours.map(|_| Vec::new()), done(theirs))
    }

    fn write(&mut self, at: usize, value: u8) -> (Outcome, Outcome) {
        let (data, offset) = (vec![value; 1 + usize::from(value % 16)], u64::from(value / 16));
        let known = &self.known[at];
        if kind(&known.model) != FileType::RegularFile {
            return (Ok(Vec::new()), Ok(Vec::new()));
        }
        let theirs = data_fd(&known.model, OFlags::WRONLY).and_then(|fd| rustix::io::pwrite(&fd, &data, offset));
        let node = known.node;
        let ours = self.driver.open(node, libc::O_WRONLY).and_then(|(handle, _)| {
            let written = self.driver.write(node, handle, offset, &data, 0);
            self.driver.release(node, handle);
            written
        });
        (ours.map(|_| Vec::new()), done(theirs))
    }

    fn read(&mut self, at: usize) -> (Outcome, Outcome) {
        let known = &self.known[at];
        let node = known.node;
        match kind(&known.model) {
            FileType::RegularFile => {
                let mut data = vec![0; 256];
                let theirs = data_fd(&known.model, OFlags::RDONLY).and_then(|fd| rustix::io::pread(&fd, &mut data, 0));
                let theirs = theirs.map(|len| data[..len].to_vec()).map_err(Errno::raw_os_error);
                let ours = self.driver.open(node, libc::O_RDONLY).and_then(|(handle, _)| {
                    let data = self.driver.read(node, handle, 0, 256);
                    self.driver.release(node, handle);
                    data
                });
                (ours, theirs)
            }
            FileType::Symlink => {
                let theirs = rustix::fs::readlinkat(&known.model, "", Vec::new())
                    .unwrap()
                    .into_bytes();
                (self.driver.call(op::READLINK, node, &[]), Ok(theirs))
            }
            _ => (self.driver.open(node, 0).map(|_| Vec::new()), Err(libc::EISDIR)),
        }
    }

    /// Permissions, size, links and kind.
    fn mode(&mut self, at: usize, mode: u32) -> (Outcome, Outcome) {
        use std::os::fd::AsRawFd;
        let known = &self.known[at];
        let is_link = kind(&known.model) == FileType::Symlink;
        // Both run as root or as an owner who keeps the right to look.
        let mode = mode | 0o700;
        let ours = if is_link {
            self.driver.getattr(known.node)
        } else {
            let path = format!("/proc/self/fd/{}", known.model.as_raw_fd());
            rustix::fs::chmod(path, Mode::from(mode)).unwrap();
            self.driver.setattr(known.node, 1, 0, mode, (0, 0))
        };
        let stat = rustix::fs::fstat(&known.model).unwrap();
        let is_folder = kind(&known.model) == FileType::Directory;
        let size = |size: u64| if is_folder { 0 } else { size };
        let describe = |mode: u32, links: u64, bytes: u64| format!("{mode:o} {links} {}", size(bytes)).into_bytes();
        let theirs = describe(stat.st_mode, stat.st_nlink, u64::try_from(stat.st_size).unwrap());
        (
            ours.map(|attr| describe(attr.mode(), attr.nlink().into(), attr.size())),
            Ok(theirs),
        )
    }

    fn list(&mut self, at: usize) -> (Outcome, Outcome) {
        let known = &self.known[at];
        if kind(&known.model) != FileType::Directory {
            return (
                self.driver.list(known.node, 512).map(|_| Vec::new()),
                Err(libc::ENOTDIR),
            );
        }
        if rustix::fs::fstat(&known.model).unwrap().st_nlink == 0 {
            // A folder that was removed lists as ENOENT or as empty, depending on who reads it.
            return (Ok(Vec::new()), Ok(Vec::new()));
        }
        let theirs = data_fd(&known.model, OFlags::RDONLY | OFlags::DIRECTORY).and_then(rustix::fs::Dir::new);
        let theirs = theirs.map(|folder| folder.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()));
        let theirs = theirs
            .map(Iterator::collect::<Vec<String>>)
            .map_err(Errno::raw_os_error);
        let joined = |names: Vec<String>| {
            let mut names: Vec<String> = names.into_iter().filter(|name| !name.starts_with('.')).collect();
            names.sort();
            names.join(" ").into_bytes()
        };
        (self.driver.list(known.node, 512).map(joined), theirs.map(joined))
    }
}
