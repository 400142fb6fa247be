//! apt and dpkg: files that are written beside, synced, linked and renamed into place, as several users.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};

use super::Work;
use crate::bed::Bed;

/// What belongs to the package and what it makes, in the guest's root.
const OF_THE_PACKAGE: [&str; 4] = ["usr/bin/bird", "usr/share/bird", "etc/bird.conf", "var/lib/bird"];

pub(super) fn apt_installs_a_local_package_and_dpkg_upgrades_and_purges_it(bed: &Bed) -> Result<()> {
    let work = Work::new(bed)?;
    let outcome = work.guest(bed, include_str!("guest/apt_install.sh"))?.run()?;
    let wanted = "1: install ok installed\nchirp 1\n60 files\n2: install ok installed\nchirp 2\n30 files\n";
    outcome.expect_code(0)?.expect_text(wanted)?;
    expect_installed(bed)?;
    let outcome = work.guest(bed, include_str!("guest/apt_purge.sh"))?.run()?;
    outcome.expect_code(0)?.expect_text("chirp 2\npurged\n")?;
    for path in OF_THE_PACKAGE {
        ensure!(!bed.root.join(path).exists(), "{path} is left");
    }
    Ok(())
}

/// Checks what the host has of the second version.
fn expect_installed(bed: &Bed) -> Result<()> {
    let of_host = |path: &str| -> Result<Metadata> {
        fs::symlink_metadata(bed.root.join(path)).with_context(|| format!("no {path} on the host"))
    };
    let (program, other_name) = (of_host("usr/bin/bird")?, of_host("usr/bin/bird-too")?);
    ensure!(
        program.mode() == 0o104_755,
        "the program's mode is {:o}",
        program.mode()
    );
    ensure!(
        program.nlink() == 2 && program.ino() == other_name.ino(),
        "the program has not the two names that it was packed with"
    );
    ensure!(of_host("usr/bin/bird-link")?.is_symlink(), "the link is none");
    let configuration = fs::read_to_string(bed.root.join("etc/bird.conf"))?;
    ensure!(configuration == "song=2\n", "the configuration is {configuration:?}");
    let passwd = fs::read_to_string(bed.root.join("etc/passwd"))?;
    let user = passwd.lines().find_map(|line| line.strip_prefix("birdy:x:"));
    let user = user
        .and_then(|rest| rest.split(':').next())
        .context("the user birdy is not there")?;
    let nest = of_host("var/lib/bird")?;
    ensure!(
        (nest.mode(), nest.uid().to_string().as_str()) == (0o042_775, user),
        "the folder of the user {user} has mode {:o} and owner {}",
        nest.mode(),
        nest.uid()
    );
    Ok(())
}
