//! The host itself.

use anyhow::{Result, ensure};

use super::{Case, SHORT, cases};
use crate::bed::Bed;
use crate::real_mode;

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT; kvm_runs_real_mode_guest, host_has_nested_paging]
}

fn kvm_runs_real_mode_guest(_: &Bed) -> Result<()> {
    let byte = real_mode::byte_written()?;
    ensure!(byte == 43, "the guest wrote {byte}");
    Ok(())
}

fn host_has_nested_paging(_: &Bed) -> Result<()> {
    let parameters = [
        "/sys/module/kvm_amd/parameters/npt",
        "/sys/module/kvm_intel/parameters/ept",
    ];
    let values: Vec<_> = parameters
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .collect();
    ensure!(
        values.iter().any(|value| ["1", "Y"].contains(&value.trim())),
        "KVM works without nested paging: {values:?}"
    );
    Ok(())
}
