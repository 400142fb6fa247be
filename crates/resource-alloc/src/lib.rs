//! Places IRQ lines and MMIO ranges in a virtual machine: named requests in, named ranges or a named refusal out.
//!
//! A [`Layout`] says which lines and which window a machine has; it is data, with the numbers of the usual machines in its
//! constructors. An [`IrqPool`] and an [`MmioPool`] hand them out and remember by name who holds what. A
//! [`ResourceAllocator`] joins the two for what nearly every caller wants: one line and one slot for one device, both or
//! neither.
//!
//! The crate knows no device, asks the host nothing and opens nothing. The same requests in the same order always give the
//! same answers, so the numbers may be treated as part of a guest's ABI.
//!
//! ```
//! use resource_alloc::{DeviceResources, IrqLine, Layout, ResourceAllocator};
//!
//! let mut alloc = ResourceAllocator::new(&Layout::x86_64_irqchip());
//! let DeviceResources { irq, mmio } = alloc.allocate_device("console")?;
//! assert_eq!((irq, mmio.base, mmio.len), (IrqLine(5), 0xd000_0000, 0x1000));
//! assert_eq!(alloc.budget().irq_lines.free(), 18);
//! # Ok::<(), resource_alloc::AllocError>(())
//! ```
//!
//! # Errors
//!
//! Every refusal is an [`AllocError`] that carries the request, the budget and the holders, so that its text lets a stranger
//! act. A failed call changes nothing.
//!
//! # Units
//!
//! MMIO bases and lengths are bytes of guest physical address space; IRQ lines are GSI numbers.

#![forbid(unsafe_code)]

mod device;
mod error;
mod holding;
mod irq;
mod layout;
mod mmio;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;

pub use device::{Budget, DeviceResources, Holder, ResourceAllocator};
pub use error::{AllocError, LayoutError};
pub use holding::{Holding, Purpose, Usage};
pub use irq::{IrqLine, IrqPool};
pub use layout::{IrqLayout, Layout, MmioLayout};
pub use mmio::{MmioPool, MmioRange};
