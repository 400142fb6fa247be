//! Builds a Linux kernel command line that the kernel reads back as it was meant.
//!
//! A [`Cmdline`] takes typed pieces (kernel words, virtio-mmio devices, the root, TSI tokens, arguments for init) and checks
//! each as it comes: its bytes, whether the kernel's parser would give back just this word, whether it fits. [`kernel_view`]
//! is that parser, modelled on the kernel's, and what every piece is checked against.
//!
//! The crate opens nothing and knows neither KVM nor what the devices are. How long a line may be and how many arguments init
//! takes are properties of a kernel, given as [`KernelLimits`].
//!
//! ```
//! use cmdline::{Cmdline, KernelLimits, Tsi, kernel_view};
//!
//! let mut line = Cmdline::new(KernelLimits::STOCK);
//! line.word("console=hvc0")?;
//! line.device(0xd000_0000, 5)?;
//! line.tsi(Tsi::Inet)?;
//! line.init_arg("a b")?;
//!
//! let text = line.build();
//! assert_eq!(text, r#"console=hvc0 virtio_mmio.device=4K@0xd0000000:5 tsi_hijack -- "a b""#);
//! assert_eq!(kernel_view::parse(text).init_args(), ["a b"]);
//! # Ok::<(), cmdline::CmdlineError>(())
//! ```
//!
//! # Errors
//!
//! A refused piece is named by its [`CmdlineError`] and leaves the line as it was. Nothing is ever cut: a kernel cuts the tail
//! of a line that is too long, which is where the devices and arguments stand.
//!
//! # Units
//!
//! Lengths and capacities are bytes; a capacity includes the NUL that ends the line.

#![forbid(unsafe_code)]

mod builder;
mod device;
mod error;
pub mod kernel_view;
mod limits;
mod quote;
mod user;
mod word;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;

pub use builder::Cmdline;
pub use device::MmioDevice;
pub use error::CmdlineError;
pub use limits::{KernelLimits, Usage};
pub use word::{Access, Origin, Tsi, Word};
