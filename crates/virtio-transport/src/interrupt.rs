//! The way from the device to the driver.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::registers::{INTERRUPT_CONFIG, INTERRUPT_STATUS, INTERRUPT_USED_RING, NEEDS_RESET, STATUS};
use crate::{RegisterPage, Trigger};

/// The interrupt of one activation: status bits that the driver reads, and the line.
///
/// Shared between the worker, which raises, and the transport, which shows the bits to the driver. Each method may be
/// called from any thread, from DRIVER_OK until [`VirtioDevice::reset`](crate::VirtioDevice::reset) returns.
pub struct Interrupt {
    page: RegisterPage,
    needs_reset: AtomicBool,
    trigger_failed: AtomicBool,
    trigger: Box<dyn Trigger>,
}

impl Interrupt {
    /// An interrupt on a line of its own, for devices that are driven without [`MmioTransport`](crate::MmioTransport)
    /// and for tests.
    #[must_use]
    pub fn new(trigger: Box<dyn Trigger>) -> Self {
        Self::on_page(trigger, RegisterPage::private())
    }

    pub(crate) fn on_page(trigger: Box<dyn Trigger>, page: RegisterPage) -> Self {
        Self {
            page,
            needs_reset: AtomicBool::new(false),
            trigger_failed: AtomicBool::new(false),
            trigger,
        }
    }

    /// Used buffers were published and the driver wants to know ([`Ring::publish`](virtio_ring::Ring::publish) said so).
    pub fn used_ring(&self) {
        self.raise(INTERRUPT_USED_RING);
    }

    /// Config space begins with `config` from now on; what is beyond it has not changed. The config generation moves on
    /// (virtio 1.3, 2.5.2).
    pub fn config_changed(&self, config: &[u8]) {
        self.page.change_config(config);
        self.raise(INTERRUPT_CONFIG);
    }

    /// The device cannot go on until the driver resets it: DEVICE_NEEDS_RESET (virtio 1.3, 2.1.2). The first call tells
    /// the driver, further ones do nothing.
    pub fn needs_reset(&self) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.page.set_bits(STATUS, NEEDS_RESET);
            self.raise(INTERRUPT_CONFIG);
        }
    }

    /// Whether [`needs_reset`](Self::needs_reset) was called.
    #[must_use]
    pub fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// The interrupt status register: bit 0 used buffers, bit 1 configuration (virtio 1.3, 4.2.2).
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.page.load(INTERRUPT_STATUS)
    }

    /// The driver has handled these causes. Other bits are left alone.
    pub fn acknowledge(&self, bits: u32) {
        self.page.clear_bits(INTERRUPT_STATUS, bits);
    }

    /// The line is an edge: it is raised even when the bit is set already, since the driver may be about to leave its
    /// handler.
    fn raise(&self, bit: u32) {
        self.page.set_bits(INTERRUPT_STATUS, bit);
        if let Err(error) = self.trigger.trigger()
            && !self.trigger_failed.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "cannot raise the interrupt; the driver will miss completions");
        }
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt")
            .field("pending", &self.pending())
            .field("needs_reset", &self.is_reset_needed())
            .finish_non_exhaustive()
    }
}

/// A line that leads nowhere: for a device whose interrupt could not be connected, and for tests that only look at the
/// status bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disconnected;

impl Trigger for Disconnected {
    fn trigger(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::registers::{CONFIG, CONFIG_GENERATION};

    struct Counting(Arc<AtomicU32>);

    impl Trigger for Counting {
        fn trigger(&self) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn counting() -> (Interrupt, Arc<AtomicU32>) {
        let edges = Arc::new(AtomicU32::new(0));
        (Interrupt::new(Box::new(Counting(Arc::clone(&edges)))), edges)
    }

    #[test]
    fn raise_with_the_bit_pending_triggers_again() {
        let (interrupt, edges) = counting();

        interrupt.used_ring();
        interrupt.used_ring();

        assert_eq!(interrupt.pending(), 1);
        assert_eq!(edges.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn acknowledge_clears_the_given_bits_only() {
        let (interrupt, _) = counting();
        interrupt.used_ring();
        interrupt.config_changed(&[]);

        interrupt.acknowledge(0xffff_fffd);

        assert_eq!(interrupt.pending(), 2);
    }

    #[test]
    fn needs_reset_twice_interrupts_once() {
        let (interrupt, edges) = counting();

        interrupt.needs_reset();
        interrupt.needs_reset();

        assert!(interrupt.is_reset_needed());
        assert_eq!(interrupt.pending(), 2);
        assert_eq!(edges.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn config_changed_shows_the_change_under_a_new_generation() {
        let page = RegisterPage::private();
        page.show_config(&[1, 2, 3, 4, 5, 6]);
        let before = page.load(CONFIG_GENERATION);
        let interrupt = Interrupt::on_page(Box::new(Disconnected), page.clone());

        interrupt.config_changed(&[9, 8, 7, 6, 0x55]);

        assert_ne!(page.load(CONFIG_GENERATION), before);
        assert_eq!(page.load(CONFIG), 0x0607_0809);
        assert_eq!(page.load(CONFIG + 4), 0x0655);
    }
}
