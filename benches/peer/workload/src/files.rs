//! Files beneath a folder: many small ones, and one that is large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ports::BULK_LEN;
use crate::report;

const FILES: u32 = 500;
const SMALL_LEN: usize = 4096;
const PIECE_LEN: usize = 1 << 20;
/// The large file that is there before the guest is.
const LAID: &str = "laid";

/// Times everything, and leaves the folder as it was.
pub(crate) fn run(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    many_small(folder)?;
    one_large(&folder.join("large"))?;
    fs::remove_dir(folder)
}

/// Makes the folder, and a large file in it.
pub(crate) fn lay(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    write_large(&folder.join(LAID)).map(drop)
}

/// Times the read of that file, for a guest that has done nothing yet, and removes it.
pub(crate) fn read_laid(folder: &Path) -> io::Result<()> {
    let name = folder.join(LAID);
    read_large("first-read", &name)?;
    fs::remove_file(name)
}

fn many_small(folder: &Path) -> io::Result<()> {
    let names: Vec<PathBuf> = (0..FILES).map(|number| folder.join(format!("file-{number}"))).collect();
    let content = [0x5a; SMALL_LEN];
    each("create", &names, |name| {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(name)?
            .write_all(&content)
    })?;
    forget_cached()?;
    each("stat", &names, |name| {
        // Not the standard library's, which asks for the time of birth too: that is a request of its own.
        let stat = rustix::fs::lstat(name)?;
        expect(usize::try_from(stat.st_size) == Ok(SMALL_LEN), "a file has another length")
    })?;
    forget_cached()?;
    each("open-read", &names, |name| {
        let mut read = [0; SMALL_LEN];
        File::open(name)?.read_exact(&mut read)?;
        expect(read == content, "a file has another content")
    })?;
    each("unlink", &names, |name| fs::remove_file(name))
}

fn one_large(name: &Path) -> io::Result<()> {
    let took = write_large(name)?;
    report::throughput("write-fsync", took, BULK_LEN);
    forget_cached()?;
    read_large("read", name)?;
    forget_cached()?;
    read_large("read-again", name)?;
    fs::remove_file(name)
}

fn write_large(name: &Path) -> io::Result<Duration> {
    let piece = vec![0x5a; PIECE_LEN];
    let start = Instant::now();
    let mut file = File::create(name)?;
    for _ in 0..BULK_LEN / PIECE_LEN {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok(start.elapsed())
}

fn read_large(line: &str, name: &Path) -> io::Result<()> {
    let mut piece = vec![0; PIECE_LEN];
    let start = Instant::now();
    let mut file = File::open(name)?;
    for _ in 0..BULK_LEN / PIECE_LEN {
        file.read_exact(&mut piece)?;
    }
    report::throughput(line, start.elapsed(), BULK_LEN);
    expect(
        piece.iter().all(|byte| *byte == 0x5a),
        "the large file has another content",
    )
}

fn each(name: &str, files: &[PathBuf], action: impl Fn(&PathBuf) -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    for file in files {
        action(file)?;
    }
    report::each(name, start.elapsed(), FILES);
    Ok(())
}

/// Lets the kernel forget pages, names and inodes that it could read again.
fn forget_cached() -> io::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "3")
}

fn expect(holds: bool, otherwise: &str) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::other(otherwise))
    }
}
