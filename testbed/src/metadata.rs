//! What a copy of a tree of files has to keep, as the host sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// More than the attributes of a test are long.
const ATTRIBUTES: usize = 4096;
/// How many differences are told.
const TOLD: usize = 5;

/// Everything beneath a folder and the folder itself, by the path from there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<PathBuf, Kept>);

/// One file of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    /// Kind and permissions.
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    content: Content,
    /// The first of the paths that lead to it.
    first_name: PathBuf,
    attributes: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Bytes { len: u64, sha256: Vec<u8> },
    Link(PathBuf),
    None,
}

impl Tree {
    /// Reads it all.
    pub(crate) fn of(top: &Path) -> Result<Self> {
        let (mut found, mut first_names) = (BTreeMap::new(), HashMap::new());
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let file = top.join(&path);
            let kept = Kept::of(&file, &path).with_context(|| format!("cannot look at {}", file.display()))?;
            if file.is_dir() && !file.is_symlink() {
                for entry in fs::read_dir(&file)? {
                    waiting.push(path.join(entry?.file_name()));
                }
            }
            found.insert(path, (fs::symlink_metadata(&file)?.ino(), kept));
        }
        // In the order of the names, whatever that of the folders is.
        let named = found.into_iter().map(|(path, (inode, mut kept))| {
            kept.first_name = first_names.entry(inode).or_insert_with(|| path.clone()).clone();
            (path, kept)
        });
        Ok(Self(named.collect()))
    }

    /// The same without a folder.
    pub(crate) fn without(mut self, folder: &str) -> Self {
        self.0.retain(|path, _| !path.starts_with(folder));
        self
    }

    /// Fails with what is not the same in a copy.
    pub(crate) fn expect_copy(&self, copy: &Self) -> Result<()> {
        let differences = self.differences(copy, |one, other| one == other);
        ensure!(differences.is_empty(), "the copy differs: {}", differences.join("; "));
        Ok(())
    }

    /// The same, but times, owners and attributes may be others.
    pub(crate) fn expect_same_content(&self, copy: &Self) -> Result<()> {
        let same = |one: &Kept, other: &Kept| (one.mode, &one.content) == (other.mode, &other.content);
        let differences = self.differences(copy, same);
        ensure!(
            differences.is_empty(),
            "the content differs: {}",
            differences.join("; ")
        );
        Ok(())
    }

    fn differences(&self, copy: &Self, same: impl Fn(&Kept, &Kept) -> bool) -> Vec<String> {
        let paths: BTreeSet<_> = self.0.keys().chain(copy.0.keys()).collect();
        let differs = |path: &&&PathBuf| match (self.0.get(**path), copy.0.get(**path)) {
            (Some(one), Some(other)) => !same(one, other),
            _ => true,
        };
        let tell = |path: &PathBuf| format!("{path:?}: {:?}, {:?}", self.0.get(path), copy.0.get(path));
        paths.iter().filter(differs).take(TOLD).map(|path| tell(path)).collect()
    }
}

impl Kept {
    fn of(file: &Path, path: &Path) -> Result<Self> {
        let metadata = fs::symlink_metadata(file)?;
        let content = if metadata.is_file() {
            Content::Bytes {
                len: metadata.len(),
                sha256: Sha256::digest(fs::read(file)?).to_vec(),
            }
        } else if metadata.is_symlink() {
            Content::Link(fs::read_link(file)?)
        } else {
            Content::None
        };
        Ok(Self {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            first_name: path.to_path_buf(),
            attributes: attributes(file)?,
        })
    }
}

/// Those that a guest can see: others are the affair of the host's file system.
fn attributes(file: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; ATTRIBUTES];
    let len = rustix::fs::llistxattr(file, &mut names[..])?;
    let names = names[..len].split(|byte| *byte == 0);
    let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
    names
        .filter(|name| name.starts_with("user.") || name == "security.capability")
        .map(|name| {
            let mut value = vec![0; ATTRIBUTES];
            let len = rustix::fs::lgetxattr(file, name.as_str(), &mut value[..])?;
            value.truncate(len);
            Ok((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    use std::os::unix::fs::{PermissionsExt, symlink};

    const EPOCH: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

    fn make(folder: &Path) {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("file"), "five!").unwrap();
        fs::hard_link(folder.join("file"), folder.join("same")).unwrap();
        symlink("file", folder.join("link")).unwrap();
        for path in [&folder.join("file"), &folder.join("link"), folder] {
            touch(path, EPOCH);
        }
    }

    fn touch(path: &Path, time: Timespec) {
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// A tree, one like it but for what `change` does to it, and whether the second passes for a copy and for the same content.
    fn compared(change: impl FnOnce(&Path)) -> (bool, bool) {
        let above = tempfile::tempdir().unwrap();
        let (one, other) = (above.path().join("one"), above.path().join("other"));
        make(&one);
        make(&other);
        change(&other);
        let (one, other) = (Tree::of(&one).unwrap(), Tree::of(&other).unwrap());
        assert_eq!(one.0.len(), 4);
        (one.expect_copy(&other).is_ok(), one.expect_same_content(&other).is_ok())
    }

    #[test]
    fn trees_made_alike_are_copies() {
        assert_eq!(compared(|_| ()), (true, true));
    }

    #[test]
    fn another_mode_content_or_name_is_told() {
        let mode = |at: &Path| fs::set_permissions(at.join("file"), fs::Permissions::from_mode(0o4700)).unwrap();
        assert_eq!(compared(mode), (false, false));
        assert_eq!(
            compared(|at| fs::write(at.join("file"), "six?!").unwrap()),
            (false, false)
        );
        assert_eq!(compared(|at| fs::remove_file(at.join("link")).unwrap()), (false, false));
    }

    #[test]
    fn another_time_or_a_link_that_became_a_file_is_no_copy_but_the_same_content() {
        let time = |at: &Path| touch(&at.join("file"), Timespec { tv_nsec: 1, ..EPOCH });
        assert_eq!(compared(time), (false, true));
        let apart = |at: &Path| {
            fs::remove_file(at.join("same")).unwrap();
            fs::copy(at.join("file"), at.join("same")).unwrap();
            touch(&at.join("same"), EPOCH);
            touch(at, EPOCH);
        };
        assert_eq!(compared(apart), (false, true));
    }
}
