//! What `cargo xtask demo` shows.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::bed::Bed;
use crate::server::Server;

/// Boots a guest in which wget fetches a page from a server on the host, and checks that the page arrived.
pub(crate) fn run(bed: &Bed) -> Result<()> {
    // Nobody but the server knows the number, so whoever shows it has reached the server.
    let number = RandomState::new().build_hasher().finish();
    let page = format!("Hello, guest! Only the host knows this number: {number}\n");
    let server = Server::start(page.clone().into_bytes())?;
    let address = server.address();
    let options = ["-c", "1", "-m", "512", "--tsi-allow", &address];
    let script = [
        "uname -srm".to_owned(),
        "grep virtiofs /proc/mounts".to_owned(),
        format!("wget -qO- http://{address}/"),
    ];

    println!();
    println!("On the host a web server listens at {address}.");
    println!("A microVM without a network device boots now, and its program asks that server for a page:");
    println!();
    println!("  $ tessera run {} ROOT -- sh -c '", options.join(" "));
    script.iter().for_each(|line| println!("        {line}"));
    println!("    '");
    let guest = bed.shell(&format!("set -ex\n{}", script.join("\n"))).with(options);
    let mut child = guest
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start tessera")?;
    let output = child.stdout.take().context("no standard output")?;
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        last = line?;
        println!("  {last}");
    }
    let status = child.wait()?;
    println!();
    ensure!(status.success(), "tessera ended with {status}");
    ensure!(last == page.trim_end(), "the page did not arrive");
    println!("The page arrived: from the host's server, through TSI, to wget in the guest.");
    Ok(())
}
