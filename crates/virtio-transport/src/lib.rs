//! The virtio-mmio transport (virtio 1.3, 4.2): register block, status machine, and the traits that devices and
//! monitors write to.
//!
//! [`MmioTransport`] stands between three parties. The *driver* reads and writes registers, and is not trusted. The
//! *device* implements [`VirtioDevice`]: a front half that answers questions, and a [`Worker`] that moves data between
//! DRIVER_OK and reset. The *monitor* implements [`Host`]: it connects the interrupt line and the notification, and
//! drives the worker on a thread of its choice. Nothing here starts a thread, opens a descriptor or knows KVM.
//!
//! # Contract
//! - Call [`MmioTransport::read`] and [`MmioTransport::write`] for accesses of the guest, one at a time.
//! - At the end of the machine call [`MmioTransport::shutdown`]: the device gets its worker back.
//! - What the driver may not do is ignored and counted in [`Stats`]; it is never fatal to the monitor.

#![forbid(unsafe_code)]

mod device;
mod features;
mod interrupt;
mod mmio;
mod page;
mod queues;
mod registers;
mod stats;
mod status;
#[cfg(feature = "vm-device")]
mod vm_device_bus;

pub use device::{
    ActivateError, Activation, Host, Interest, Memory, Poller, Readiness, SharedMemory, Task, Trigger, VirtioDevice,
    Worker,
};
pub use interrupt::{Disconnected, Interrupt};
pub use mmio::MmioTransport;
pub use page::RegisterPage;
pub use registers::{FIRST_INTERRUPT_REGISTER, MMIO_LEN};
pub use stats::Stats;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
