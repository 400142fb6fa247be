//! What of the host is to be shared: found wanting before anything is started.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use machine::{Share, ShareKind, Spec};

/// Checks that every folder and file of the spec is there and can be read.
pub(crate) fn check(spec: &Spec) -> anyhow::Result<()> {
    if let Some(root) = &spec.root {
        folder("root folder", &root.host)?;
    }
    spec.shares.iter().try_for_each(share)
}

fn share(share: &Share) -> anyhow::Result<()> {
    match share.kind {
        ShareKind::Folder => folder("shared folder", &share.host),
        ShareKind::File => fs::File::open(&share.host)
            .map(drop)
            .with_context(|| format!("the shared file {} cannot be read", share.host.display())),
    }
}

fn folder(what: &str, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => bail!("the {what} {shown} is not a folder"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("the {what} {shown} does not exist"),
        Err(error) => Err(error).with_context(|| format!("the {what} {shown} cannot be reached")),
        Ok(_) => fs::read_dir(path)
            .map(|_| ())
            .with_context(|| format!("the {what} {shown} cannot be read")),
    }
}
