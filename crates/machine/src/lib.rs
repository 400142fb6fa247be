//! A KVM microVM in three steps.
//!
//! ```text
//! Spec ──plan()──> Plan ──build()──> Machine ──run()──> Exit
//! ```
//!
//! A [`Spec`] says what is asked for. [`plan()`] decides, from the spec and the [`Limits`] alone, everything that the
//! machine consists of: memory, devices with their IRQ lines and addresses, the kernel's command line. `build` opens KVM
//! and carries the plan out; it decides nothing. `run` returns how the machine ended, with its threads joined and its
//! descriptors closed.
//!
//! The crate owns no process: it installs no signal handler, reads no environment variable, changes no umask, and any
//! number of machines run side by side. Without the feature `kvm` it plans and inspects kernels on any host.

#![cfg_attr(not(feature = "kvm"), forbid(unsafe_code))]

pub mod kernel;
pub mod limits;
pub mod plan;
pub mod spec;

pub use limits::{HostOs, IrqLayouts, KernelKind, KernelTraits, Limits};
pub use plan::{Plan, PlanError, plan};
pub use spec::{
    Cache, Choice, IrqchipChoice, KernelWords, Net, Publish, Share, ShareKind, Spec, Stdio, Stream, VsockRoute,
};

#[cfg(feature = "kvm")]
mod build;
#[cfg(feature = "kvm")]
mod bus;
#[cfg(feature = "kvm")]
mod exit;
#[cfg(feature = "kvm")]
mod irqchip;
#[cfg(feature = "kvm")]
mod legacy;
#[cfg(feature = "kvm")]
mod run;
#[cfg(feature = "kvm")]
mod sys;
#[cfg(feature = "kvm")]
mod vcpu;
#[cfg(feature = "kvm")]
mod worker;

#[cfg(feature = "kvm")]
pub use build::{BuildError, HostStdio, Resources, build, missing_capabilities};
#[cfg(feature = "kvm")]
pub use exit::{Exit, NotStarted, VcpuFault};
#[cfg(feature = "kvm")]
pub use run::{Handle, Machine, RunError};
#[cfg(feature = "kvm")]
pub use worker::KvmHost;
