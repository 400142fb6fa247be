//! tar: everything that can be said of a file, read and written.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::Work;
use crate::bed::Bed;
use crate::metadata::Tree;

/// From the root to a share that caches nothing, and back.
pub(super) fn tar_there_and_back_keeps_content_and_metadata(bed: &Bed) -> Result<()> {
    let work = Work::new(bed)?;
    let (tree, there, back) = (work.path("tree"), work.path("there"), work.path("back"));
    for folder in [&tree, &there, &back] {
        fs::create_dir(folder)?;
    }
    let etc = bed.root.join("etc");
    ensure!(
        Command::new("cp").arg("-a").args([&etc, &tree]).status()?.success(),
        "cp failed"
    );
    make_peculiar_files(&tree)?;
    let share = format!("{}:/there:cache=none", there.display());
    let guest = work.guest(bed, include_str!("guest/tar.sh"))?.with(["-v", &share]);
    guest.run()?.expect_code(0)?.expect_text("equal\nequal\n")?;
    let original = Tree::of(&tree)?;
    original.expect_copy(&Tree::of(&there)?)?;
    original.expect_copy(&Tree::of(&back)?)
}

fn make_peculiar_files(at: &Path) -> Result<()> {
    make_links_and_names(at)?;
    make_owners_and_permissions(at)?;
    make_times(at)?;
    make_attributes(at)?;
    let sparse = File::create(at.join("sparse"))?;
    sparse.set_len(2 << 20)?;
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 1 << 20)?;
    Ok(())
}

fn make_links_and_names(at: &Path) -> Result<()> {
    fs::write(at.join("one"), "of two names\n")?;
    fs::create_dir_all(at.join("a folder/with another"))?;
    fs::hard_link(at.join("one"), at.join("a folder/with another/name"))?;
    symlink("one", at.join("link"))?;
    symlink("/nowhere", at.join("dangling"))?;
    lchown(at.join("dangling"), Some(7), Some(8))?;
    for name in [
        "n".repeat(255).as_bytes(),
        b"\xff\xfe",
        b"new\nline",
        "Größe".as_bytes(),
    ] {
        fs::write(at.join(OsStr::from_bytes(name)), name)?;
    }
    Ok(rustix::fs::mknodat(
        CWD,
        at.join("pipe"),
        FileType::Fifo,
        Mode::from_raw_mode(0o620),
        0,
    )?)
}

fn make_owners_and_permissions(at: &Path) -> Result<()> {
    for mode in [0o000, 0o400, 0o666, 0o4711, 0o2755, 0o6777, 0o1644] {
        let file = at.join(format!("mode {mode:o}"));
        fs::write(&file, "mode\n")?;
        chown(&file, Some(1000), Some(65_533))?;
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
    }
    for (name, mode) in [("for all", 0o1777), ("of a group", 0o2770), ("of nobody", 0o000)] {
        let folder = at.join(name);
        fs::create_dir(&folder)?;
        fs::write(folder.join("file"), name)?;
        chown(&folder, Some(0), Some(100_000))?;
        fs::set_permissions(&folder, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// In nanoseconds, and on both sides of 2038.
fn make_times(at: &Path) -> Result<()> {
    for since in [
        Duration::ZERO,
        Duration::from_nanos(1_234_567_890_123_456_789),
        Duration::from_secs(1 << 32),
    ] {
        let file = at.join(format!("time {}", since.as_secs()));
        fs::write(&file, "time\n")?;
        File::open(&file)?.set_times(FileTimes::new().set_modified(UNIX_EPOCH + since))?;
    }
    Ok(())
}

fn make_attributes(at: &Path) -> Result<()> {
    // CAP_NET_BIND_SERVICE, permitted and effective, in revision 2.
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |name: &str, attribute: &str, value: &[u8]| {
        rustix::fs::setxattr(at.join(name), attribute, value, XattrFlags::empty())
    };
    fs::write(at.join("attributes"), "attributes\n")?;
    chown(at.join("attributes"), Some(12), Some(34))?;
    set("attributes", "user.empty", b"")?;
    set("attributes", "user.bytes", b"\0\n=\xff")?;
    set("attributes", "security.capability", &CAPABILITY)?;
    Ok(set("a folder", "user.of a folder", &[b'x'; 1000])?)
}
