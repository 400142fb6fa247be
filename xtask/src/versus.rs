//! `cargo xtask versus`: our program against `msb_krun` and against no guest at all, on a machine that counts time in
//! instructions.
//!
//! All three run the same static program (`benches/peer/workload`), each in a boot of the outer host, against the same
//! server and with the same kernel, memory and root folder for both guests.

mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::archive::Archive;
use crate::outer_host::{Clock, OuterHost, add_program, written};
use crate::step::{cargo, shown, step};
use crate::{guest_kernel, paths, setup};
use table::Table;

/// An address of the outer host that is not its loopback address, which a guest would look for in itself first.
const SERVER: &str = "192.0.2.1";
/// How long the slowest measurement takes on a busy machine, and how often a silent one is begun.
const SILENCE: Duration = Duration::from_secs(180);
const ATTEMPTS: u32 = 4;
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the program runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Side {
    /// On the outer host itself: loopback and tmpfs
    Host,
    /// In a guest of ours
    Tessera,
    /// In a guest of `msb_krun`
    MsbKrun,
}

impl Side {
    /// The folder of the files, as the outer host names it.
    fn folder(self) -> &'static str {
        match self {
            Self::Host => "/tmp/bench",
            Self::Tessera | Self::MsbKrun => "/tmp/root/bench",
        }
    }

    /// Runs the program where this side runs it, its guest made for that.
    fn command(self, arguments: &str) -> String {
        match self {
            Self::Host => format!("/bed/root/bin/workload {arguments} {}", self.folder()),
            Self::Tessera => format!(
                "/bed/tessera run -c 1 -m 512 --tsi-allow {SERVER} --kernel /bed/kernel /tmp/root -- /bin/workload {arguments} /bench"
            ),
            Self::MsbKrun => format!("/bed/peer-msb /bed/kernel /tmp/root /bin/workload {arguments} /bench"),
        }
    }
}

/// Runs the sides named, all of them when none is, and prints what they measured.
pub(crate) fn run(sides: &[Side]) -> Result<()> {
    let sides = if sides.is_empty() {
        Side::value_variants()
    } else {
        sides
    };
    let outer = OuterHost::prepare()?;
    let mut table = Table::default();
    for side in sides {
        measure(&outer, *side, &mut table)?;
    }
    println!("{table}");
    let missing = table.sides_without_a_value(sides);
    if !missing.is_empty() {
        bail!("nothing was measured for {}", missing.join(", "));
    }
    Ok(())
}

/// Measures one side. The emulated processor loses an interrupt now and then, and with it a guest.
fn measure(outer: &OuterHost, side: Side, table: &mut Table) -> Result<()> {
    let image = written(&pack(outer, side)?)?;
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let measured = step("running in the outer host, whose clock counts instructions", || {
            outer.boot_image(&image, Clock::Instructions, SILENCE, |line| {
                eprintln!("    {line}");
                table.take(line);
            })
        });
        match measured {
            Err(error) if left > 0 => eprintln!("    again, since {error:#}"),
            last => return last,
        }
    }
}

fn pack(outer: &OuterHost, side: Side) -> Result<Archive> {
    let mut archive = outer.archive(&script(side))?;
    match side {
        Side::Host => {}
        Side::Tessera => add_program(&mut archive, &setup::tessera()?, "tessera")?,
        Side::MsbKrun => add_program(&mut archive, &peer()?, "peer-msb")?,
    }
    archive.copy(workload()?, "bed/root/bin/workload")?;
    for folder in ["dev", "proc", "sys", "tmp", "bench"] {
        archive.folder(Path::new("bed/root").join(folder));
    }
    archive.copy(guest_kernel::prepare()?, "bed/kernel")?;
    Ok(archive)
}

/// The root folder is copied to a tmpfs, since that is what the last column is measured on.
fn script(side: Side) -> String {
    let lines = [
        format!("ip address add {SERVER}/32 dev lo"),
        "cp -a /bed/root /tmp/root".to_owned(),
        format!("/bed/root/bin/workload lay {}", side.folder()),
        format!("/bed/root/bin/workload serve {SERVER} &"),
        "sleep 1".to_owned(),
        format!("echo '{}{}'", table::SIDE, table::name_of(side)),
        side.command("read-laid"),
        side.command(&format!("run {SERVER}")),
        "true".to_owned(),
    ];
    lines.join("\n")
}

fn peer() -> Result<PathBuf> {
    step("building msb_krun (release; minutes when it is new)", || {
        shown(&mut peer_cargo(&["-p", "peer-msb"]))
    })?;
    Ok(peer_target().join("release/peer-msb"))
}

fn workload() -> Result<PathBuf> {
    step("building the workload (static)", || {
        let mut build = peer_cargo(&["-p", "peer-workload", "--target", STATIC_TARGET]);
        shown(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))
    })?;
    Ok(peer_target().join(STATIC_TARGET).join("release/peer-workload"))
}

fn peer_cargo(arguments: &[&str]) -> std::process::Command {
    let mut command = cargo(&["build", "--release", "--locked"]);
    command
        .args(arguments)
        .current_dir(paths::workspace().join("benches/peer"))
        .env("CARGO_TARGET_DIR", peer_target());
    command
}

/// Apart from ours, so that neither's flags make the other's things old.
fn peer_target() -> PathBuf {
    paths::target().join("peer")
}
