//! Writes the archive that a Linux kernel unpacks as its first file system: cpio in the "newc" form
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

enum Content {
    None,
    Bytes(Vec<u8>),
    CopyOf(PathBuf),
}

/// Files to be packed, by their path in the archive; everything belongs to root there.
#[derive(Default)]
pub(crate) struct Archive {
    // Sorted, so that a folder comes before what is in it.
    entries: BTreeMap<PathBuf, (u32, Content)>,
}

impl Archive {
    /// Adds an empty folder and those above it.
    pub(crate) fn folder(&mut self, path: impl AsRef<Path>) {
        let relative = path.as_ref().strip_prefix("/").unwrap_or(path.as_ref());
        for folder in relative.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            self.entries
                .entry(folder.to_path_buf())
                .or_insert((DIRECTORY | 0o755, Content::None));
        }
    }

    /// Adds an executable file of these bytes.
    pub(crate) fn script(&mut self, path: impl AsRef<Path>, text: &str) {
        self.insert(path.as_ref(), FILE | 0o755, Content::Bytes(text.as_bytes().to_vec()));
    }

    /// Adds a copy of a file, or of what a link leads to, with its permissions.
    pub(crate) fn copy(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let from = from.as_ref();
        let metadata = fs::metadata(from).with_context(|| format!("cannot pack {}", from.display()))?;
        self.insert(
            to.as_ref(),
            FILE | (metadata.permissions().mode() & 0o7777),
            Content::CopyOf(from.to_path_buf()),
        );
        Ok(())
    }

    /// Adds a folder with all that is in it; links stay links.
    pub(crate) fn copy_tree(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.folder(to);
        for entry in fs::read_dir(from).with_context(|| format!("cannot pack {}", from.display()))? {
            let entry = entry?;
            let (source, name) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.copy_tree(&source, &name)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&source)?;
                self.insert(
                    &name,
                    LINK | 0o777,
                    Content::Bytes(target.as_os_str().as_bytes().to_vec()),
                );
            } else {
                self.copy(&source, &name)?;
            }
        }
        Ok(())
    }

    /// Writes the archive.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(to).with_context(|| format!("cannot write {}", to.display()))?);
        for (inode, (path, (mode, content))) in self.entries.iter().enumerate() {
            let bytes = match content {
                Content::None => Vec::new(),
                Content::Bytes(bytes) => bytes.clone(),
                Content::CopyOf(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
            };
            write_entry(&mut out, inode + 1, path.as_os_str().as_bytes(), *mode, &bytes)?;
        }
        write_entry(&mut out, 0, b"TRAILER!!!", 0, &[])?;
        out.flush()?;
        Ok(())
    }

    fn insert(&mut self, path: &Path, mode: u32, content: Content) {
        let relative = path.strip_prefix("/").unwrap_or(path);
        if let Some(parent) = relative.parent() {
            self.folder(parent);
        }
        self.entries.insert(relative.to_path_buf(), (mode, content));
    }
}

fn write_entry(out: &mut impl Write, inode: usize, name: &[u8], mode: u32, bytes: &[u8]) -> io::Result<()> {
    const HEADER_LEN: usize = 110;
    let (uid, gid, links, modified, device) = (0, 0, 1, 0, 0);
    write!(
        out,
        "070701{inode:08X}{mode:08X}{uid:08X}{gid:08X}{links:08X}{modified:08X}{:08X}",
        bytes.len()
    )?;
    write!(
        out,
        "{device:08X}{device:08X}{device:08X}{device:08X}{:08X}{:08X}",
        name.len() + 1,
        0
    )?;
    out.write_all(name)?;
    out.write_all(&[0])?;
    pad(out, HEADER_LEN + name.len() + 1)?;
    out.write_all(bytes)?;
    pad(out, bytes.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    let zeros = [0; 3];
    out.write_all(&zeros[..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: name, mode and content of each entry up to the trailer.
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let field = |index: usize| {
                let digits = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, len, name_len) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_len - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_len - 1], 0);
            bytes = &bytes[(110 + name_len).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return found;
            }
            found.push((name, mode, bytes[..len].to_vec()));
            bytes = &bytes[len.next_multiple_of(4)..];
        }
    }

    #[test]
    fn archive_with_a_nested_file_has_its_folders_first() {
        let folder = std::env::temp_dir().join(format!("xtask-archive-{}", std::process::id()));
        fs::create_dir_all(folder.join("tree")).unwrap();
        fs::write(folder.join("tree/file"), "five!").unwrap();
        std::os::unix::fs::symlink("file", folder.join("tree/link")).unwrap();
        let mut archive = Archive::default();
        archive.script("init", "#!/bin/sh\n");
        archive.copy_tree(&folder.join("tree"), Path::new("/a/b")).unwrap();
        let file = folder.join("archive");
        archive.write(&file).unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::remove_dir_all(&folder).unwrap();

        let entries = entries(&bytes);
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/file", "a/b/link", "init"]);
        assert_eq!(entries[0].1, 0o40755);
        assert_eq!(
            (entries[2].1 & 0o170_000, entries[2].2.as_slice()),
            (FILE, b"five!".as_slice())
        );
        assert_eq!(
            (entries[3].1 & 0o170_000, entries[3].2.as_slice()),
            (LINK, b"file".as_slice())
        );
        assert_eq!(
            (entries[4].1, entries[4].2.as_slice()),
            (0o100_755, b"#!/bin/sh\n".as_slice())
        );
    }
}
