//! `cargo xtask suites posix`: pjdfstest and fsx in guests of the outer host, beside what its own tmpfs makes of them.

mod results;

use std::path::Path;

use anyhow::Result;

use crate::archive::Archive;
use crate::outer_host::{Clock, OuterHost, add_program};
use crate::step::step;
use crate::{guest_kernel, guest_root, setup, tools};
use results::Results;

/// The suites and their versions, as the package registry has them.
const PROGRAMS: [(&str, &str); 2] = [("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];

/// What the suites need in `/etc`, in the guest and in the outer host.
const FILES: [(&str, &str); 4] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\ntests:x:1000:1000:tests:/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\ntests:x:1000:\n"),
    // With a shorter nap, tmpfs itself fails the cases that wait for another time.
    (
        "etc/pjdfstest.toml",
        "[features]\nposix_fallocate = {}\nrename_ctime = {}\nutimensat = {}\nutime_now = {}\n\
         [settings]\nnaptime = 0.02\nallow_remount = false\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"tests\", \"tests\"]]\n",
    ),
    (
        "etc/fsx.toml",
        "[weights]\nclose_open = 1\ninvalidate = 1\nmapread = 5\nmapwrite = 5\nread = 10\nwrite = 10\ntruncate = 3\n\
         fsync = 0.2\nfdatasync = 0.2\nposix_fallocate = 1\npunch_hole = 1\nsendfile = 2\nposix_fadvise = 1\n\
         copy_file_range = 2\n",
    ),
];

/// Runs them and prints what failed; an error when something failed that does not fail on tmpfs too.
pub(crate) fn run() -> Result<()> {
    let outer = OuterHost::prepare()?;
    let archive = pack(&outer)?;
    let mut results = Results::default();
    step(
        "running the suites in the outer host (some five minutes on two idle processors)",
        || {
            outer.boot(&archive, Clock::Host, |line| {
                if results.take(line) {
                    eprintln!("    {line}");
                }
            })
        },
    )?;
    println!("{results}");
    results.verdict()
}

fn pack(outer: &OuterHost) -> Result<Archive> {
    let mut archive = outer.archive(include_str!("outer_host.sh"))?;
    add_program(&mut archive, &setup::tessera()?, "tessera")?;
    archive.copy(guest_kernel::prepare()?, "bed/kernel")?;
    let root = Path::new("bed/root");
    archive.copy_tree(&guest_root::prepare()?, root)?;
    for (name, version) in PROGRAMS {
        let program = tools::installed(name, version, &[])?;
        add_program(&mut archive, &program, name)?;
        archive.copy(&program, root.join("bin").join(name))?;
        for library in guest_root::with_libraries(&program)?.iter().skip(1) {
            archive.copy(library, root.join(library.strip_prefix("/").unwrap_or(library)))?;
        }
    }
    for (path, text) in FILES {
        archive.script(path, text);
        archive.script(root.join(path), text);
    }
    Ok(archive)
}
