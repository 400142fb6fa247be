//! git: thousands of small files that are made, locked, renamed and mapped.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;

use super::Work;
use crate::bed::Bed;
use crate::metadata::Tree;

const FOLDERS: usize = 40;
const FILES_EACH: usize = 50;

pub(super) fn git_commits_2000_files_and_another_guest_clones_them(bed: &Bed) -> Result<()> {
    let work = Work::new(bed)?;
    let repository = work.path("repository");
    make_files(&repository)?;
    let committed = Tree::of(&repository)?;
    let outcome = work.guest(bed, include_str!("guest/git_commit.sh"))?.run()?;
    outcome
        .expect_code(0)?
        .expect_text(&format!("{} files\nnothing to commit\n", FOLDERS * FILES_EACH))?;
    let outcome = work.guest(bed, include_str!("guest/git_clone.sh"))?.run()?;
    outcome.expect_code(0)?.expect_text("sound\n M 0/0\nsound\n")?;
    committed.expect_same_content(&Tree::of(&work.path("clone"))?.without(".git"))
}

/// Files of several sizes, a folder of programs and two links.
fn make_files(repository: &Path) -> Result<()> {
    for folder in 0..FOLDERS {
        let at = repository.join(folder.to_string());
        fs::create_dir_all(&at)?;
        for file in 0..FILES_EACH {
            let path = at.join(file.to_string());
            match (folder, file) {
                (1 | 2, 1) => symlink("0", &path)?,
                _ => fs::write(&path, format!("file {file} of folder {folder}\n").repeat(1 + file % 7))?,
            }
            if folder == 3 {
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            }
        }
    }
    Ok(())
}
