//! Folders and files of the host in the guest.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::{Case, SHORT, cases};
use crate::bed::{Bed, Running};

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT;
        root_is_writable_and_the_host_sees_it,
        share_read_write_carries_both_ways,
        share_read_only_refuses_writes,
        share_does_not_lead_out_of_its_folder,
        share_serves_what_a_shell_does_with_files,
        share_of_a_file_is_that_file_beside_a_folder_and_a_read_only_one,
        share_of_a_file_that_the_host_replaces_stays_the_old_one,
        share_of_a_file_over_a_folder_of_the_root_is_an_error,
        share_of_two_guests_carries_from_each_to_the_other,
        share_under_an_edit_of_the_host_shows_what_its_cache_promises,
        share_that_the_host_deletes_gives_errors_and_the_guest_goes_on,
        share_whose_driver_is_taken_off_and_put_back_serves_again,
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

/// The option of a share, by path.
fn volume_of(path: &Path, rest: &str) -> [String; 2] {
    ["-v".to_owned(), format!("{}:{rest}", path.display())]
}

fn share_of_a_file_is_that_file_beside_a_folder_and_a_read_only_one(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let of_host = |name: &str| folder.path().join(name);
    for name in ["conf", "fixed", "beside"] {
        fs::write(of_host(name), format!("{name}\n"))?;
    }
    let line = "cat /etc/app/conf /srv/fixed; echo more >>/etc/app/conf; cat /data/conf; truncate -s 3 /etc/app/conf; \
        chmod 640 /etc/app/conf; stat -c '%a %s' /data/conf; ls /etc/app; \
        mv /etc/app/conf /etc/app/moved 2>/dev/null || echo busy; rm -f /etc/app/conf 2>/dev/null || echo busy; \
        echo gone 2>/dev/null >/srv/fixed || echo refused; chmod 777 /srv/fixed 2>/dev/null || echo refused; \
        mount -o remount,rw /srv/fixed 2>/dev/null; echo gone 2>/dev/null >/srv/fixed || echo refused";
    let outcome = bed
        .shell(line)
        .with(volume_of(&of_host("conf"), "/etc/app/conf"))
        .with(volume_of(&of_host("fixed"), "/srv/fixed:ro"))
        .with(volume(&folder, "/data:cache=none"))
        .run()?;
    let wanted = "conf\nfixed\nconf\nmore\n640 3\nconf\nbusy\nbusy\nrefused\nrefused\nrefused\n";
    outcome.expect_code(0)?.expect_text(wanted)?;
    for (name, text) in [("conf", "con"), ("fixed", "fixed\n"), ("beside", "beside\n")] {
        let found = fs::read_to_string(of_host(name))?;
        ensure!(found == text, "the host reads {found:?} in {name}");
    }
    ensure!(
        !bed.root.join("etc/app").exists() && !bed.root.join("srv").exists(),
        "a mount point was made in the host's folder"
    );
    Ok(())
}

/// A guest that has said that it is ready goes on when a file `go` appears in its share.
const UNTIL_GO: &str = "until [ -e /data/go ]; do sleep 0.1; done";

/// Starts a guest, and lets it go on when the host has done something to `folder`.
fn edit_under(bed: &Bed, line: &str, options: &[[String; 2]], edit: impl FnOnce() -> Result<()>) -> Result<String> {
    let mut guest: Running = bed.shell(line).with(options.concat()).start()?;
    guest.wait_for_line("ready")?;
    edit()?;
    let (text, status) = guest.finish()?;
    ensure!(status.success(), "the guest ended with {status}");
    Ok(text)
}

fn share_of_a_file_that_the_host_replaces_stays_the_old_one(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (one, new) = (folder.path().join("one"), folder.path().join("new"));
    fs::write(&one, "old\n")?;
    let line = format!("cat /one; echo ready; {UNTIL_GO}; cat /one; echo guest >>/one; cat /one");
    let options = [volume_of(&one, "/one"), volume(&folder, "/data")];
    let text = edit_under(bed, &line, &options, || {
        fs::write(&new, "new\n")?;
        fs::rename(&new, &one)?;
        Ok(fs::write(folder.path().join("go"), "")?)
    })?;
    ensure!(text == "old\nold\nguest\n", "the guest reads {text:?}");
    ensure!(fs::read_to_string(&one)? == "new\n", "the new file was written to");
    Ok(())
}

fn share_of_a_file_over_a_folder_of_the_root_is_an_error(bed: &Bed) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    bed.shell("true")
        .with(volume_of(file.path(), "/etc"))
        .run()?
        .expect_error(&["\"/etc\"", "a folder is there"])?;
    Ok(())
}

fn share_of_two_guests_carries_from_each_to_the_other(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = |own: &str, other: &str| {
        format!(
            "cd /data; echo of {own} >{own}.part; mv {own}.part {own}; \
             until [ -e {other} ]; do sleep 0.1; done; cat {other}; \
             echo seen by {own} >>{other}; until grep -q 'seen by {other}' {own}; do sleep 0.1; done; cat {own}"
        )
    };
    let start = |own: &str, other: &str| bed.shell(&line(own, other)).with(volume(&folder, "/data")).start();
    let (one, two) = (start("one", "two")?, start("two", "one")?);
    for (guest, own, other) in [(one, "one", "two"), (two, "two", "one")] {
        let (text, status) = guest.finish()?;
        ensure!(status.success(), "the guest {own} ended with {status}");
        let first = text.starts_with(&format!("of {other}\n"));
        ensure!(
            first && text.ends_with(&format!("of {own}\nseen by {other}\n")),
            "the guest {own} reads {text:?}"
        );
    }
    Ok(())
}

/// One folder three times, once with each cache. What `always` shows is what it showed before, unless it asks for something
/// else: the size of a file it learns when it asks when that was read last, so here the size stays.
/// Reading is grep's affair, as busybox's cat has the kernel do it, which ends at the size that it knows for a second.
fn share_under_an_edit_of_the_host_shows_what_its_cache_promises(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let of_host = |name: &str| folder.path().join(name);
    for name in ["longer", "same", "removed"] {
        fs::write(of_host(name), "old\n")?;
    }
    let line = format!(
        "for at in data auto always; do cat /$at/longer /$at/same; ls /$at/later /$at/removed 2>/dev/null; done >/dev/null; \
         exec 3</data/longer; echo ready; {UNTIL_GO}; \
         for at in data auto always; do echo $at; grep '' /$at/same; ls /$at/later 2>/dev/null; done; \
         grep -h '' /data/longer /auto/longer; echo open; grep '' <&3; \
         sleep 1.2; ls /data/removed /auto/removed /always/removed 2>/dev/null; \
         cat /data/longer /auto/longer; stat -c %s /data/longer /auto/longer"
    );
    let options = ["/data:cache=none", "/auto:cache=auto", "/always:cache=always"].map(|rest| volume(&folder, rest));
    let text = edit_under(bed, &line, &options, || {
        fs::write(of_host("longer"), "newer\n")?;
        fs::write(of_host("same"), "new\n")?;
        fs::write(of_host("later"), "")?;
        fs::remove_file(of_host("removed"))?;
        Ok(fs::write(of_host("go"), "")?)
    })?;
    let at_once = "data\nnew\n/data/later\nauto\nnew\n/auto/later\nalways\nold\nnewer\nnewer\nopen\nnewer\n";
    let after_a_second = "/always/removed\nnewer\nnewer\n6\n6\n";
    ensure!(text == format!("{at_once}{after_a_second}"), "the guest reads {text:?}");
    Ok(())
}

fn share_that_the_host_deletes_gives_errors_and_the_guest_goes_on(bed: &Bed) -> Result<()> {
    let (folder, signals) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let shared = folder.path().join("shared");
    fs::create_dir_all(shared.join("a/b"))?;
    fs::write(shared.join("a/b/open"), "still here\n")?;
    fs::write(shared.join("a/b/other"), "")?;
    let line = format!(
        "cd /gone/a/b; cat other; exec 3<open; echo ready; {UNTIL_GO}; sleep 1.2; cat <&3; \
         for do in 'cat other' 'touch new' 'mkdir d' 'cat /gone/a/b/other' 'touch /gone/new' 'mv other o'; do \
         $do 2>/dev/null && echo \"$do: done\"; done; ls -A /gone; cd /; echo over"
    );
    let options = [volume_of(&shared, "/gone"), volume(&signals, "/data")];
    let text = edit_under(bed, &line, &options, || {
        fs::remove_dir_all(&shared)?;
        Ok(fs::write(signals.path().join("go"), "")?)
    })?;
    ensure!(text == "still here\nover\n", "the guest says {text:?}");
    Ok(())
}

/// The driver resets the device where it is not heard, after so many interrupts that the registers are its memory.
fn share_whose_driver_is_taken_off_and_put_back_serves_again(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = "set -e; cd /sys/bus/virtio/drivers/virtiofs; device=$(ls -d virtio* | tail -n 1); \
        for round in 1 2 3; do \
            for n in $(seq 100); do echo $round >/data/$round-$n; done; \
            umount /data; echo $device >unbind; echo $device >bind; mount -t virtiofs share0 /data; \
            cat /data/$round-100; \
        done";
    let outcome = bed.shell(line).with(volume(&folder, "/data")).run()?;
    outcome.expect_code(0)?.expect_text("1\n2\n3\n")?;
    let files = fs::read_dir(folder.path())?.count();
    ensure!(files == 300, "the host has {files} files");
    Ok(())
}
