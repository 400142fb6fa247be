//! Folders of the host that are to be shared: found wanting before anything is started.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use machine::Spec;

/// Checks that every folder of the spec is there and can be listed.
pub(crate) fn check(spec: &Spec) -> anyhow::Result<()> {
    if let Some(root) = &spec.root {
        folder("root folder", &root.host)?;
    }
    spec.shares
        .iter()
        .try_for_each(|share| folder("shared folder", &share.host))
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
