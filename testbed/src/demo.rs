//! What `cargo xtask demo` shows.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::bed::Bed;
use crate::server::Server;

/// Boots a guest in which wget fetches a page from a server on the host, and checks that the page arrived.
pub(crate) fn run(bed: &Bed) -> Result<()> {
    // Nobody but this server knows the number, so whoever shows it has reached the server.
    let number = std::process::id() ^ u32::from_le_bytes(*b"tess");
    let page = format!("Hello from the host, guest! The host's number is {number}.\n");
    let server = Server::start(page.clone().into_bytes())?;
    let address = server.address();
    let line = format!(
        "echo \"This is $(uname -s) $(uname -r) on $(nproc) processors, its root is $(stat -f -c %T / 2>/dev/null || echo fuse).\"; \
         echo 'In /proc/cmdline:' $(tr ' ' '\\n' </proc/cmdline | grep tsi); \
         echo '+ wget -qO- http://{address}/'; exec wget -qO- http://{address}/"
    );
    println!();
    println!("A server on the host listens at {address}.");
    println!("A guest with no network device boots now; its program asks for a page there, and TSI carries it.");
    println!();
    let guest = bed.shell(&line).with(["-c", "1", "-m", "512", "--tsi-allow", &address]);
    let output = guest
        .command()
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start tessera")?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!();
    text.lines().for_each(|line| println!("    guest| {line}"));
    println!();
    ensure!(output.status.success(), "the guest ended with {}", output.status);
    ensure!(text.ends_with(&page), "the page did not arrive");
    println!("The page arrived whole, and the guest ended with {}.", output.status);
    Ok(())
}
