//! Debian's python3 in the guests' root folder: the interpreter and so much of its library as programs that serve and
//! connect need. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::guest_root::with_libraries;
use crate::step::quiet;
use crate::{debian, paths};

/// Depends on the library of Debian's version of python3, and so tells which that is.
const NAMES_THE_VERSION: &str = "libpython3-stdlib";
/// Folders of the library that `http.server` and `socketserver` use, and those that the interpreter itself does.
const FOLDERS: [&str; 7] = ["collections", "email", "html", "http", "importlib", "re", "urllib"];
/// The few of the many encodings.
const ENCODINGS: [&str; 6] = ["__init__", "aliases", "ascii", "idna", "latin_1", "utf_8"];

/// Puts python3 into a root folder.
pub(crate) fn add(root: &Path) -> Result<()> {
    let library = debian::stands_for(NAMES_THE_VERSION)?;
    let version = library
        .strip_prefix("lib")
        .and_then(|rest| rest.strip_suffix("-stdlib"))
        .with_context(|| format!("{library} is not named like a library of python3"))?;
    let unpacked = paths::testbed().join(version);
    let minimal = unpack(&format!("{version}-minimal"), &unpacked)?;
    copy_program(&minimal.join("usr/bin").join(version), root)?;
    let modules = Path::new("usr/lib").join(version);
    for package in [format!("lib{version}-minimal"), format!("lib{version}-stdlib")] {
        copy_library(&unpack(&package, &unpacked)?.join(&modules), &root.join(&modules))?;
    }
    // Its absence makes the interpreter complain that it cannot find its own modules in C.
    fs::create_dir_all(root.join(&modules).join("lib-dynload"))?;
    leave_only_bytecode(root, &root.join(modules))
}

/// A guest's program starts in a fraction of the time when the emulated processor need not compile its modules.
fn leave_only_bytecode(root: &Path, modules: &Path) -> Result<()> {
    let options = [
        "-ISBm",
        "compileall",
        "-qb",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
    ];
    quiet(
        Command::new(root.join("usr/bin/python3"))
            .args(options)
            .arg(root)
            .arg(modules),
    )?;
    quiet(Command::new("find").arg(modules).args(["-name", "*.py", "-delete"]))?;
    Ok(())
}

fn unpack(package: &str, below: &Path) -> Result<PathBuf> {
    let folder = below.join(package);
    fs::create_dir_all(below)?;
    debian::unpack(package, &folder)?;
    Ok(folder)
}

fn copy_program(program: &Path, root: &Path) -> Result<()> {
    let has_all_libraries = || quiet(Command::new("ldd").arg(program)).is_ok_and(|text| !text.contains("not found"));
    debian::install("libexpat1", has_all_libraries)?;
    for library in with_libraries(program)?.iter().skip(1) {
        let inside = root.join(library.strip_prefix("/").unwrap_or(library));
        fs::create_dir_all(inside.parent().unwrap_or(root))?;
        fs::copy(library, &inside)?;
    }
    fs::copy(program, root.join("usr/bin/python3"))?;
    Ok(())
}

fn copy_library(from: &Path, into: &Path) -> Result<()> {
    copy_modules(from, into, |_| true)?;
    copy_modules(&from.join("encodings"), &into.join("encodings"), |name| {
        ENCODINGS.contains(&name)
    })?;
    for folder in FOLDERS {
        copy_modules(&from.join(folder), &into.join(folder), |_| true)?;
    }
    Ok(())
}

/// Copies the modules of one folder that `wanted` takes by their names; a folder that is not there has none.
fn copy_modules(from: &Path, into: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir_all(into)?;
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "py") && path.is_file() && wanted(&stem) {
            fs::copy(&path, into.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}
