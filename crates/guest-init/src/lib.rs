//! The first process of a tessera guest: its bytes, and what the host and it agree on.
//!
//! [`init`] is a static ELF binary for the guest's architecture. The monitor presents it as a virtual file of the
//! root share ([`contract::INIT_PATH`]) beside its configuration ([`Config`] as JSON, [`contract::CONFIG_PATH`]) and
//! boots with `init=/.tessera/init`. In the guest it mounts what is to be mounted, runs the program, forwards signals,
//! reaps orphans, and reports how the program ended by an ioctl that no output of the program can be mistaken for.
//!
//! ```
//! # #[cfg(feature = "serde")] {
//! let config = guest_init::Config {
//!     args: vec!["echo".into(), "hello".into()],
//!     cwd: "/".into(),
//!     ports: guest_init::Ports { stdout: true, stderr: true, ..Default::default() },
//!     ..Default::default()
//! };
//! let files = [
//!     (guest_init::contract::INIT_PATH, guest_init::init().to_vec()),
//!     (guest_init::contract::CONFIG_PATH, config.to_json()),
//! ];
//! assert!(files[0].1.starts_with(b"\x7fELF"));
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod contract;

mod config;

pub use config::{Config, Mount, MountKind, Ports, Rlimit};

static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tessera-init"));

/// The init: an ELF executable for the architecture this crate was built for, without an interpreter.
pub fn init() -> &'static [u8] {
    INIT
}

#[cfg(feature = "serde")]
impl Config {
    /// What [`contract::CONFIG_PATH`] holds.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists of them have a JSON form")
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
