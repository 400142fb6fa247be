//! Folders of the host in the guest.

use std::fs;

use anyhow::{Result, ensure};

use super::{Case, SHORT, cases};
use crate::bed::Bed;

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT;
        root_is_writable_and_the_host_sees_it,
        share_read_write_carries_both_ways,
        share_read_only_refuses_writes,
        share_does_not_lead_out_of_its_folder,
        share_serves_what_a_shell_does_with_files,
    ]
}

/// The option of a share.
fn volume(folder: &tempfile::TempDir, rest: &str) -> [String; 2] {
    ["-v".to_owned(), format!("{}:{rest}", folder.path().display())]
}

fn root_is_writable_and_the_host_sees_it(bed: &Bed) -> Result<()> {
    let file = bed.root.join("root/written-by-a-guest");
    bed.shell("echo guest was here >/root/written-by-a-guest")
        .run()?
        .expect_code(0)?;
    let text = fs::read_to_string(&file)?;
    fs::remove_file(&file)?;
    ensure!(text == "guest was here\n", "the host reads {text:?}");
    ensure!(
        !bed.root.join(".tessera").exists(),
        "the root folder of the host was written to"
    );
    Ok(())
}

fn share_read_write_carries_both_ways(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("from-host"), "ping\n")?;
    let outcome = bed
        .shell("cat /data/from-host; echo pong >/data/from-guest")
        .with(volume(&folder, "/data"))
        .run()?;
    outcome.expect_code(0)?.expect_text("ping\n")?;
    let text = fs::read_to_string(folder.path().join("from-guest"))?;
    ensure!(text == "pong\n", "the host reads {text:?}");
    ensure!(
        !bed.root.join("data").exists(),
        "the mount point was made in the host's folder"
    );
    Ok(())
}

fn share_read_only_refuses_writes(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("file"), "kept\n")?;
    let line = "cat /data/file; echo gone >/data/file || echo refused; rm /data/file || echo refused; touch /data/new || echo refused";
    let outcome = bed.shell(line).with(volume(&folder, "/data:ro")).run()?;
    outcome
        .expect_code(0)?
        .expect_text("kept\nrefused\nrefused\nrefused\n")?;
    ensure!(
        fs::read_to_string(folder.path().join("file"))? == "kept\n",
        "the host's file has changed"
    );
    ensure!(
        fs::read_dir(folder.path())?.count() == 1,
        "there is something new in the host's folder"
    );
    Ok(())
}

fn share_does_not_lead_out_of_its_folder(bed: &Bed) -> Result<()> {
    let above = tempfile::tempdir()?;
    fs::write(above.path().join("secret"), "secret\n")?;
    let shared = above.path().join("shared");
    fs::create_dir(&shared)?;
    std::os::unix::fs::symlink("../secret", shared.join("relative"))?;
    std::os::unix::fs::symlink(above.path().join("secret"), shared.join("absolute"))?;
    let line = "for path in /data/../secret /data/relative /data/absolute; do cat $path 2>/dev/null; done; readlink /data/relative";
    let share = format!("{}:/data", shared.display());
    bed.shell(line)
        .with(["-v", &share])
        .run()?
        .expect_code(0)?
        .expect_text("../secret\n")?;
    Ok(())
}

fn share_serves_what_a_shell_does_with_files(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = "set -e; cd /data; mkdir -p a/b; echo one >a/b/f; mv a/b/f a/g; ln a/g h; ln -s h s; chmod 640 h; \
        cat s; stat -c '%a %h %s' h; truncate -s 10 h; stat -c %s a/g; echo more >>h; cp -r a c; ls c; rm -r a; \
        for n in $(seq 200); do : >many-$n; done; ls | wc -l; rm many-*; mkfifo p; stat -c %F p; \
        dd if=/dev/zero of=big bs=64k count=64 2>/dev/null; stat -c %s big; sync; find . | sort | tr '\\n' ' '";
    let outcome = bed.shell(line).with(volume(&folder, "/data")).run()?;
    let wanted = "one\n640 2 4\n10\nb\ng\n203\nfifo\n4194304\n. ./big ./c ./c/b ./c/g ./h ./p ./s ";
    outcome.expect_code(0)?.expect_text(wanted)?;
    Ok(())
}
