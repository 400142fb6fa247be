//! python3: compiled modules are written beside their sources, renamed into place and taken by the source's time and size.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Work;
use crate::bed::Bed;

/// Parts of python's own library.
const PACKAGES: [&str; 7] = ["asyncio", "concurrent", "email", "http", "json", "logging", "urllib"];
/// Where a compiled module has the time and the size of its source, each four bytes.
const HEADER: std::ops::Range<usize> = 8..16;

pub(super) fn python_compiles_modules_and_imports_what_it_wrote(bed: &Bed) -> Result<()> {
    let work = Work::new(bed)?;
    let (library, modules) = (library(&bed.root)?, work.path("modules"));
    for package in PACKAGES {
        copy_sources(&library.join(package), &modules.join(package))?;
    }
    let outcome = work.guest(bed, include_str!("guest/python.sh"))?.run()?;
    outcome.expect_code(0)?.expect_text("compiled\nimported\n")?;
    let sources = sources(&modules)?;
    ensure!(sources.len() > 80, "there are only {} modules", sources.len());
    sources.iter().try_for_each(|source| expect_compiled(source))
}

/// The library of Debian's version of python.
fn library(root: &Path) -> Result<PathBuf> {
    let folders = fs::read_dir(root.join("usr/lib"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut libraries = folders.filter(|folder| folder.join("asyncio").is_dir());
    libraries.next().context("this Debian has no library of python3")
}

fn copy_sources(from: &Path, into: &Path) -> Result<()> {
    for source in sources(from)? {
        let copy = into.join(source.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().unwrap_or(into))?;
        fs::copy(&source, &copy)?;
    }
    Ok(())
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut sources(&path)?);
        } else if path.extension() == Some(OsStr::new("py")) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Checks that the compiled module that belongs to a source says so.
fn expect_compiled(source: &Path) -> Result<()> {
    let stem = source.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let start = format!("{stem}.cpython-");
    let cache = source.with_file_name("__pycache__");
    let compiled = fs::read_dir(&cache)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .with_context(|| format!("{} was not compiled", source.display()))?;
    let metadata = fs::metadata(source)?;
    let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let wanted = [modified, metadata.len()].map(|number| u32::try_from(number).map(u32::to_le_bytes));
    let wanted = [wanted[0]?, wanted[1]?].concat();
    let found = fs::read(&compiled)?;
    ensure!(
        found.get(HEADER) == Some(&wanted),
        "{} is of another source",
        compiled.display()
    );
    Ok(())
}
