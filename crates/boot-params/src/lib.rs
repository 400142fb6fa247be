//! The bytes and register values a Linux guest is booted with, as plain data.
//!
//! A microVM has no firmware: the monitor itself leaves in guest memory what a boot loader would have left there, points
//! the first vCPU at the kernel and lets go. This crate computes what to leave and what to load into the registers. It
//! opens nothing, knows no hypervisor and touches no guest memory; its results are [`Blob`]s (an address and bytes) and
//! [`BootRegisters`], which any monitor can apply.
//!
//! | module | what it decides | source |
//! |---|---|---|
//! | [`layout`] | every fixed guest physical address | Linux and KVM conventions |
//! | [`memory`] | where RAM is, given how much was asked for | the 32-bit gap holds the devices |
//! | [`mod@e820`] | the memory map the kernel is told | Linux `Documentation/arch/x86/boot.rst` |
//! | [`mod@mptable`] | CPUs, IO-APIC and interrupt lines | Intel MultiProcessor Specification 1.4 |
//! | [`long_mode`] | page tables, GDT, zero page and registers of the 64-bit entry | Linux boot protocol 2.12 |
//! | [`pvh`] | start info and registers of the PVH entry | Xen PVH ABI, `hvm_start_info` version 1 |
//! | [`setup_header`] | what a bzImage says about itself | Linux boot protocol |
//! | [`initramfs`] | where the initial RAM file system goes | Linux boot protocol, `initrd_addr_max` |
//! | [`aarch64`] | the numbers of the aarch64 map | Linux `Documentation/arch/arm64/booting.rst` |
//!
//! ```
//! use boot_params::{BootConfig, long_mode, memory};
//!
//! let ram = memory::ram_regions(512 << 20)?;
//! let image = long_mode::boot_image(&BootConfig {
//!     entry: 0x100_0123,
//!     ram: &ram,
//!     command_line: b"console=hvc0 reboot=k panic=-1",
//!     initramfs: None,
//!     cpus: 2,
//!     io_apic_pins: 24,
//!     setup_header: None,
//! })?;
//! for blob in &image.blobs {
//!     println!("{:#x}: {} bytes", blob.address, blob.bytes.len()); // write it to guest memory here
//! }
//! assert_eq!(image.registers.rip, 0x100_0123);
//! # Ok::<(), boot_params::BootParamsError>(())
//! ```
#![forbid(unsafe_code)]

pub mod aarch64;
mod boot;
pub mod e820;
mod error;
pub mod gdt;
pub mod initramfs;
pub mod layout;
pub mod long_mode;
pub mod memory;
pub mod mptable;
pub mod paging;
pub mod pvh;
pub mod registers;
pub mod setup_header;
pub mod zero_page;

pub use boot::{Blob, BootConfig, BootImage};
pub use e820::{E820Entry, E820Kind, e820};
pub use error::BootParamsError;
pub use memory::{Region, ram_regions};
pub use mptable::mptable;
pub use registers::{BootRegisters, DescriptorTable, Segment};
pub use setup_header::SetupHeader;
pub use zero_page::{ZeroPage, zero_page};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
