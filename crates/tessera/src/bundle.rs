//! The guest kernel that is kept for `run`: where it lies and how it is known.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use machine::kernel::KernelImage;
use sha2::{Digest, Sha256};

/// The file's name, in the wheel and in the data folder.
pub(crate) const FILE_NAME: &str = "libkrunfw.so.5.6.1";
/// What is in it, for people.
pub(crate) const CONTENT: &str = "libkrunfw 5.6.1, Linux 6.12.113 with TSI";
/// Its SHA-256.
pub(crate) const SHA256: &str = "3854efcd3fe625528fa00207d97586d9790db8c436bb6881a43986604336d18e";

/// `$XDG_DATA_HOME/tessera`, by default `~/.local/share/tessera`.
pub(crate) fn data_folder() -> anyhow::Result<PathBuf> {
    data_folder_of(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
        .context("there is no place for the guest kernel: set HOME or XDG_DATA_HOME")
}

/// A relative `$XDG_DATA_HOME` counts as none (XDG Base Directory Specification).
fn data_folder_of(xdg_data_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |folder: Option<OsString>| folder.map(PathBuf::from).filter(|folder| folder.is_absolute());
    let data = absolute(xdg_data_home).or_else(|| Some(absolute(home)?.join(".local/share")))?;
    Some(data.join("tessera"))
}

/// Where `kernel fetch` puts the kernel and `run` looks for it.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    Ok(data_folder()?.join(FILE_NAME))
}

/// Opens the kernel that was asked for, or the fetched one.
pub(crate) fn open_kernel(asked: Option<&Path>) -> anyhow::Result<KernelImage> {
    if let Some(asked) = asked {
        return Ok(KernelImage::open(asked)?);
    }
    let path = path()?;
    if !path.exists() {
        bail!("there is no guest kernel yet: run `tessera kernel fetch`, or give one with --kernel");
    }
    Ok(KernelImage::open(&path)?)
}

/// The SHA-256 of all that can be read, in hexadecimal digits.
pub(crate) fn sha256_of(mut from: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut from, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The SHA-256 of a file.
pub(crate) fn sha256_of_file(path: &Path) -> anyhow::Result<String> {
    let hash = File::open(path).and_then(sha256_of);
    hash.with_context(|| format!("{} cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_folder_follows_xdg_then_home() {
        let of = |xdg: Option<&str>, home: Option<&str>| data_folder_of(xdg.map(Into::into), home.map(Into::into));
        assert_eq!(of(Some("/x"), Some("/h")), Some("/x/tessera".into()));
        assert_eq!(of(None, Some("/h")), Some("/h/.local/share/tessera".into()));
        assert_eq!(of(Some(""), Some("/h")), Some("/h/.local/share/tessera".into()));
        assert_eq!(of(Some("x"), Some("/h")), Some("/h/.local/share/tessera".into()));
        assert_eq!(of(Some("x"), Some("h")), None);
        assert_eq!(of(None, None), None);
    }

    #[test]
    fn sha256_is_that_of_the_standard() {
        let hash = sha256_of(&b"abc"[..]).expect("memory can be read");
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
