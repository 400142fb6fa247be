//! The guest kernel, fetched by our own program.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::step::{quiet, shown, step};
use crate::{debian, paths};

/// Where `tessera kernel fetch` puts it, beneath `$XDG_DATA_HOME`.
const BUNDLE: &str = "tessera/libkrunfw.so.5.6.1";

/// The bundle's file, fetched when it is not there.
pub(crate) fn prepare() -> Result<PathBuf> {
    let bundle = paths::testbed().join(BUNDLE);
    if bundle.is_file() {
        return Ok(bundle);
    }
    debian::install("python3-pip", || {
        quiet(Command::new("python3").args(["-m", "pip", "--version"])).is_ok()
    })?;
    step("fetching the guest kernel (48 MB)", || {
        let mut fetch = Command::new(paths::release_program("tessera"));
        shown(fetch.args(["kernel", "fetch"]).env("XDG_DATA_HOME", paths::testbed()))
    })?;
    Ok(bundle)
}
