//! Debian's packages: installed where a program with many parts is needed, only unpacked where one file will do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::step::{quiet, step};

/// Installs a package unless `there` says that what it is wanted for is there.
pub(crate) fn install(package: &str, there: impl Fn() -> bool) -> Result<()> {
    if there() {
        return Ok(());
    }
    step(&format!("installing the Debian package {package}"), || {
        let install = || {
            quiet(
                as_root(&["apt-get", "install", "-y", "--no-install-recommends", package])?
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        };
        if install().is_err() {
            update_lists()?;
            install()?;
        }
        if !there() {
            bail!("the package {package} is installed, but what it was wanted for is not there");
        }
        Ok(())
    })
}

/// Unpacks a package into a folder, without installing it; a folder that is there is taken as it is.
pub(crate) fn unpack(package: &str, into: &Path) -> Result<()> {
    if into.is_dir() {
        return Ok(());
    }
    step(
        &format!("unpacking the Debian package {package} (not installed)"),
        || {
            let download = paths::testbed().join("download");
            fs::create_dir_all(&download)?;
            if fetch(package, &download).is_err() {
                update_lists()?;
                fetch(package, &download)?;
            }
            let archive = archive_of(package, &download)?;
            let unfinished = into.with_extension("unfinished");
            quiet(Command::new("dpkg").arg("-x").arg(&archive).arg(&unfinished))?;
            fs::rename(&unfinished, into)?;
            fs::remove_file(&archive)?;
            Ok(())
        },
    )
}

/// The package that a package without content of its own, such as `linux-image-cloud-amd64`, stands for.
pub(crate) fn stands_for(package: &str) -> Result<String> {
    let first = |text: String| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned))
    };
    let ask = || quiet(Command::new("apt-cache").args(["depends", package])).map(first);
    if let Ok(Some(name)) = ask() {
        return Ok(name);
    }
    update_lists()?;
    ask()?.with_context(|| format!("Debian's lists name no package that {package} stands for"))
}

fn fetch(package: &str, folder: &Path) -> Result<String> {
    quiet(Command::new("apt-get").args(["download", package]).current_dir(folder))
}

fn archive_of(package: &str, folder: &Path) -> Result<PathBuf> {
    let start = format!("{package}_");
    fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .with_context(|| format!("apt-get download left no archive of {package} in {}", folder.display()))
}

fn update_lists() -> Result<()> {
    step("fetching Debian's package lists", || {
        quiet(&mut as_root(&["apt-get", "update", "-q"])?).map(drop)
    })
}

/// A command with the rights of root, by sudo where we are not root.
pub(crate) fn as_root(arguments: &[&str]) -> Result<Command> {
    let am_root = quiet(Command::new("id").arg("-u"))?.trim() == "0";
    let (program, rest) = match arguments {
        [program, rest @ ..] => (*program, rest),
        [] => bail!("no command to run as root"),
    };
    if am_root {
        let mut command = Command::new(program);
        command.args(rest);
        return Ok(command);
    }
    if paths::program("sudo").is_none() {
        bail!(
            "this needs root, and there is no sudo; run it as root once: {}",
            arguments.join(" ")
        );
    }
    let mut command = Command::new("sudo");
    command.args(arguments);
    Ok(command)
}
