//! One file for each subcommand.

pub(crate) mod doctor;
pub(crate) mod kernel_fetch;
pub(crate) mod kernel_info;
pub(crate) mod plan;
pub(crate) mod run;
