//! What a Debian system does with its files: the guest's root is a Debian made by debootstrap.
//!
//! `cargo xtask suites debian` runs these. Each case makes a folder in the root's `/srv`, lets a script of `guest/` work in
//! it, and looks at what the guest says and at what the host then has.

mod apt;
mod files;
mod git;
mod python;
mod tar;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use self::apt::apt_installs_a_local_package_and_dpkg_upgrades_and_purges_it;
use self::files::files_serve_databases_mappings_and_locks_with_every_cache;
use self::git::git_commits_2000_files_and_another_guest_clones_them;
use self::python::python_compiles_modules_and_imports_what_it_wrote;
use self::tar::tar_there_and_back_keeps_content_and_metadata;
use super::{Case, cases};
use crate::bed::{Bed, Guest};

/// Tens of thousands of requests each, on an emulated machine that others may keep busy.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Those that take longest first.
pub(super) fn cases() -> Vec<Case> {
    cases![DEADLINE;
        git_commits_2000_files_and_another_guest_clones_them,
        apt_installs_a_local_package_and_dpkg_upgrades_and_purges_it,
        files_serve_databases_mappings_and_locks_with_every_cache,
        tar_there_and_back_keeps_content_and_metadata,
        python_compiles_modules_and_imports_what_it_wrote,
    ]
}

/// A folder that the guest has too.
struct Work {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl Work {
    fn new(bed: &Bed) -> Result<Self> {
        let above = bed.root.join("srv");
        let folder = tempfile::tempdir_in(&above).with_context(|| format!("no folder in {}", above.display()))?;
        Ok(Self {
            folder,
            root: bed.root.clone(),
        })
    }

    /// A path in it on the host.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same path in the guest.
    fn in_guest(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        Ok(Path::new("/")
            .join(path.strip_prefix(&self.root)?)
            .display()
            .to_string())
    }

    /// A guest that runs a script with the folder for its current and its home folder.
    fn guest<'a>(&self, bed: &'a Bed, script: &str) -> Result<Guest<'a>> {
        let folder = self.in_guest("")?;
        let options = ["-w", &folder, "-e", &format!("HOME={folder}"), "-e", "LC_ALL=C.UTF-8"];
        Ok(bed.guest(&["bash", "-euo", "pipefail", "-c", script]).with(options))
    }
}
