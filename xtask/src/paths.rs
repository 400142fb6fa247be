//! Where things are.

use std::path::{Path, PathBuf};

/// The top folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

/// What was fetched or made for the test bed.
pub(crate) fn testbed() -> PathBuf {
    target().join("testbed")
}

/// A program of ours, built by `cargo build --release`.
pub(crate) fn release_program(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Finds a program as a shell would, and in the folders of administrators too.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}
