//! `cargo xtask suites debian`: what a Debian system does with its files, in guests that have it as their root.

mod image;

use anyhow::Result;

use crate::cases;
use crate::outer_host::OuterHost;
use crate::setup::{self, Service};
use crate::step::step;

/// Where the outer host has the root folder of the image.
const ROOT: &str = "/disk/root";

/// Runs the cases whose name contains `part`; an error when one fails or there is none.
pub(crate) fn run(part: &str) -> Result<()> {
    let parts = setup::parts()?;
    let names = parts.case_names(&["--debian", part])?;
    let outer = OuterHost::prepare()?.with_disk(image::prepare()?);
    let service = Service::Nested(&outer, outer.image_with_root_at(ROOT, &parts, "serve")?);
    step(
        "running Debian in guests of the outer host (some five minutes on two idle processors)",
        || cases::run(names, &service),
    )
}
