//! Builds the init with one call of rustc. It has no dependency but `std`, so this needs no registry, no lock file and
//! no second cargo, works in a vendored or read-only source tree, and is the same under clippy, rustdoc and fuzzing,
//! whose flags are meant for the host's code.

#[path = "build/elf.rs"]
mod elf;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for path in ["build.rs", "build/elf.rs", "init", "src/config.rs", "src/contract.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(problem) = build() {
        println!("cargo::error=cannot build the guest's init: {problem}");
    }
}

fn build() -> Result<(), String> {
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let machine = elf::machine_number(&arch).ok_or(format!("guests of architecture {arch} are not supported"))?;
    let init = PathBuf::from(variable("OUT_DIR")?).join("tessera-init");
    compile(&init_target(&arch)?, &init)?;
    let file = std::fs::read(&init).map_err(|error| format!("{}: {error}", init.display()))?;
    elf::check(&file, machine).map_err(|unfit| format!("{} will not do: {unfit}", init.display()))
}

/// The guest runs Linux whatever the host runs. A musl host has musl's standard library for sure and perhaps no other.
fn init_target(arch: &str) -> Result<String, String> {
    let environment = match variable("CARGO_CFG_TARGET_ENV")?.as_str() {
        "musl" => "musl",
        _ => "gnu",
    };
    Ok(format!("{arch}-unknown-linux-{environment}"))
}

fn compile(target: &str, output: &Path) -> Result<(), String> {
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args([
        "--edition=2024",
        "--crate-name=tessera_init",
        "--crate-type=bin",
        "--cap-lints=allow",
    ]);
    rustc.arg(format!("--target={target}"));
    for setting in [
        "target-feature=+crt-static",
        "relocation-model=static",
        "opt-level=z",
        "lto=fat",
        "codegen-units=1",
        "panic=abort",
        "strip=symbols",
    ] {
        rustc.args(["-C", setting]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER")
        && variable("TARGET")? == target
    {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    rustc.arg("-o").arg(output).arg("init/main.rs");
    let result = rustc
        .output()
        .map_err(|error| format!("{:?}: {error}", rustc.get_program()))?;
    if result.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&result.stderr);
    Err(format!(
        "rustc for {target} ended with {}; it needs that target's standard library and a static C library (libc6-dev): {}",
        result.status,
        said.replace('\n', " | ")
    ))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
