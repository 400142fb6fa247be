//! `cargo xtask demo`.

use anyhow::Result;

use crate::setup;

/// Sets up, then runs the demo of the test bed's program where a guest can boot.
pub(crate) fn run() -> Result<()> {
    let bed = setup::prepare()?;
    if bed.is_nested() {
        eprintln!("==> starting the emulated machine; the guest's first words come after some 10 s");
    }
    bed.demo()
}
