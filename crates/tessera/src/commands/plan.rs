//! `tessera plan`: what a machine would consist of. Opens no device and starts nothing.

use std::process::ExitCode;

use anyhow::Context;
use machine::{Limits, Stdio};

use crate::cli::PlanArgs;
use crate::spec::spec;
use crate::{bundle, output};

pub(crate) fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let spec = spec(&args.machine, &args.net, Stdio::default(), |name| {
        std::env::var_os(name)
    })?;
    let plan = machine::plan(&spec, &limits(args)?)?;
    let text = if args.json {
        serde_json::to_string_pretty(&plan).context("the plan cannot be written as JSON")? + "\n"
    } else {
        plan.to_string()
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Without `--kernel` a plan needs no file: it is made for the kernel that `kernel fetch` gets.
fn limits(args: &PlanArgs) -> anyhow::Result<Limits> {
    match &args.machine.kernel {
        Some(path) => Ok(Limits::new(bundle::open_kernel(Some(path))?.traits().clone())),
        None => Ok(Limits::bundle()),
    }
}
