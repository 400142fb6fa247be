//! A Debian as a disk image, made once by debootstrap.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::step::{quiet, step};
use crate::{debian, paths};

const SCRIPT: &str = include_str!("make_image.sh");

/// The image, made when there is none of this recipe.
pub(crate) fn prepare() -> Result<PathBuf> {
    let image = paths::testbed().join("debian.ext4");
    let made_by = image.with_extension("recipe");
    let recipe = format!("{}\n{SCRIPT}", release()?);
    if image.is_file() && fs::read_to_string(&made_by).is_ok_and(|text| text == recipe) {
        return Ok(image);
    }
    debian::install("debootstrap", || paths::program("debootstrap").is_some())?;
    debian::install("e2fsprogs", || paths::program("mke2fs").is_some())?;
    fs::create_dir_all(paths::testbed())?;
    step(
        "making a Debian with debootstrap (some three minutes, 120 MB to fetch)",
        || {
            let path = image.to_str().context("the target folder's path is no UTF-8")?;
            quiet(&mut debian::as_root(&[
                "sh",
                "-c",
                SCRIPT,
                "make_image.sh",
                &release()?,
                path,
            ])?)?;
            Ok(fs::write(&made_by, &recipe)?)
        },
    )?;
    Ok(image)
}

/// The name of this machine's Debian release, which is the one that its sources of packages have.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot tell which Debian this is")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release names no release")?.to_owned())
}
