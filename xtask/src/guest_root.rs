//! The folder that guests of the test bed have as their root: busybox, and Debian's wget and python3 with their libraries.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::{quiet, step};
use crate::{debian, guest_python, paths};

const FILES: [(&str, &str); 5] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/nsswitch.conf", "hosts: files\n"),
    ("etc/profile", "export PATH=/usr/bin:/bin:/usr/sbin:/sbin\n"),
];

/// A statically linked busybox.
pub(crate) fn busybox() -> Result<PathBuf> {
    let unpacked = paths::testbed().join("busybox");
    debian::unpack("busybox-static", &unpacked)?;
    ["bin/busybox", "usr/bin/busybox"]
        .map(|path| unpacked.join(path))
        .into_iter()
        .find(|path| path.is_file())
        .context("the package busybox-static holds no busybox")
}

/// The root folder, made when it is not there or lacks what was added last.
pub(crate) fn prepare() -> Result<PathBuf> {
    let root = paths::testbed().join("guest-root");
    if root.join("usr/bin/python3").is_file() {
        return Ok(root);
    }
    let busybox = busybox()?;
    debian::install("wget", || paths::program("wget").is_some())?;
    step("making a root folder for guests", || {
        let unfinished = root.with_extension("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        fill(&unfinished, &busybox)?;
        guest_python::add(&unfinished)?;
        let _ = fs::remove_dir_all(&root);
        fs::rename(&unfinished, &root)?;
        Ok(())
    })?;
    Ok(root)
}

fn fill(root: &Path, busybox: &Path) -> Result<()> {
    // No `dev` or `proc`: a root folder may lack them, and the guest must come up all the same.
    for folder in ["bin", "etc", "root", "tmp", "usr/bin"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (path, text) in FILES {
        fs::write(root.join(path), text)?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    let applets = quiet(Command::new(busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| !["busybox", "wget"].contains(applet)) {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let wget = paths::program("wget").context("no wget")?;
    for file in with_libraries(&wget)? {
        let inside = root.join(file.strip_prefix("/").unwrap_or(&file));
        fs::create_dir_all(inside.parent().unwrap_or(root))?;
        fs::copy(&file, &inside)?;
    }
    Ok(())
}

/// A program and the shared libraries that the loader would give it.
pub(crate) fn with_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![program.to_path_buf()];
    let libraries = quiet(Command::new("ldd").arg(program))?;
    files.extend(
        libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(PathBuf::from),
    );
    Ok(files)
}
