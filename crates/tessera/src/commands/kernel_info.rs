//! `tessera kernel info`: what a kernel file is.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use machine::kernel::{BootProtocol, KernelImage};

use crate::{bundle, output};

pub(crate) fn info(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let image = bundle::open_kernel(file)?;
    let path = file.map_or_else(bundle::path, |file| Ok(file.to_owned()))?;
    let sha256 = bundle::sha256_of_file(&path)?;
    output::print(&describe(&path, &sha256, &image).context("the description cannot be written")?)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(path: &Path, sha256: &str, image: &KernelImage) -> Result<String, std::fmt::Error> {
    let (entry, traits) = (image.entry_point(), image.traits());
    let version = if sha256 == bundle::SHA256 {
        bundle::CONTENT
    } else {
        "not one that is known"
    };
    let protocol = match entry.protocol {
        BootProtocol::LongMode => "64-bit boot protocol",
        BootProtocol::Pvh => "PVH",
    };
    let mut text = String::new();
    writeln!(text, "file          {}", path.display())?;
    writeln!(text, "sha256        {sha256}")?;
    writeln!(text, "format        {}", traits.kind)?;
    writeln!(text, "version       {version}")?;
    writeln!(text, "load address  {:#x}", entry.footprint.start)?;
    writeln!(text, "entry address {:#x} ({protocol})", entry.address)?;
    writeln!(text, "memory        {} MiB at least", traits.min_mem.div_ceil(1 << 20))?;
    writeln!(
        text,
        "command line  {} bytes at most",
        traits.cmdline_capacity.saturating_sub(1)
    )?;
    Ok(text)
}
