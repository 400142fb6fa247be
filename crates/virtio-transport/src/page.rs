//! The register block as the driver reads it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::registers::{self as reg, MMIO_LEN};

/// What the driver reads at each offset of a register block: [`MMIO_LEN`] bytes, in words that are changed atomically.
///
/// The transport keeps it true at all times, so a monitor may let the driver read it without being asked: as memory
/// that the guest can read and not write (`KVM_MEM_READONLY`). Reading InterruptStatus, which Linux does for each
/// interrupt, then costs no exit. Writes have to come to [`MmioTransport::write`](crate::MmioTransport::write), with
/// two exceptions, both of them for a driver that runs:
///
/// - A monitor may swallow a write of 1 to InterruptACK (an ioeventfd does that inside KVM). Bit 0 of InterruptStatus then
///   stays set until the next reset, and the driver looks at its used rings at each interrupt, which is what an
///   edge-triggered interrupt is for.
/// - A monitor that puts a border of pages before [`FIRST_INTERRUPT_REGISTER`](crate::FIRST_INTERRUPT_REGISTER) may make what
///   follows the driver's own memory, and an interrupt costs no exit at all. Of all that the driver has in it, Status is
///   looked at: with the next access that comes here. A reset is thus done late, though before the driver can have freed or
///   set up a queue, whose registers lie before the border; and it reads back as done before it is (2.4.1). So it is for drivers
///   that have no buffer with the device when they reset it, and for devices that do not change config space and let nobody
///   write it: a bit of InterruptStatus that is set stays set. [`Host::stop`](crate::Host::stop) has to take the memory
///   away again: before DRIVER_OK the driver must be heard.
#[derive(Clone)]
pub struct RegisterPage(Arc<dyn AsRef<[AtomicU32]> + Send + Sync>);

impl RegisterPage {
    /// A page in `words`, which are zero, [`MMIO_LEN`] bytes long, and little-endian to the driver. What lies beyond
    /// their end reads as 0.
    pub fn new(words: impl AsRef<[AtomicU32]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(words))
    }

    /// A page that only the transport sees.
    #[must_use]
    pub fn private() -> Self {
        let words: Vec<_> = (0..MMIO_LEN / 4).map(|_| AtomicU32::default()).collect();
        Self::new(words)
    }

    pub(crate) fn load(&self, offset: u64) -> u32 {
        self.word(offset)
            .map_or(0, |word| u32::from_le(word.load(Ordering::Acquire)))
    }

    pub(crate) fn store(&self, offset: u64, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value.to_le(), Ordering::Release);
        }
    }

    pub(crate) fn set_bits(&self, offset: u64, bits: u32) {
        if let Some(word) = self.word(offset) {
            word.fetch_or(bits.to_le(), Ordering::AcqRel);
        }
    }

    pub(crate) fn clear_bits(&self, offset: u64, bits: u32) {
        if let Some(word) = self.word(offset) {
            word.fetch_and(!bits.to_le(), Ordering::AcqRel);
        }
    }

    /// Whatever a driver has left in what may have been its memory is gone. The config generation goes on.
    pub(crate) fn clear_interrupt_registers(&self) {
        for offset in (reg::INTERRUPT_STATUS..MMIO_LEN).step_by(4) {
            if offset != reg::CONFIG_GENERATION {
                self.store(offset, 0);
            }
        }
    }

    /// Fills `data` from the bytes at `offset`.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            let [b0, b1, b2, b3] = self.load(at & !3).to_le_bytes();
            *byte = match at % 4 {
                0 => b0,
                1 => b1,
                2 => b2,
                _ => b3,
            };
        }
    }

    /// Shows `config` as config space from its start; what is beyond stays as it is.
    pub(crate) fn show_config(&self, config: &[u8]) {
        let (words, rest) = config.as_chunks::<4>();
        let mut at = reg::CONFIG;
        for word in words {
            self.store(at, u32::from_le_bytes(*word));
            at += 4;
        }
        if !rest.is_empty() {
            let mut last = self.load(at).to_le_bytes();
            for (byte, new) in last.iter_mut().zip(rest) {
                *byte = *new;
            }
            self.store(at, u32::from_le_bytes(last));
        }
    }

    /// The generation moves before and after the change: a driver that read across either reads again (virtio 1.3,
    /// 2.5.1). One that read in between is told by the interrupt that follows.
    pub(crate) fn change_config(&self, config: &[u8]) {
        self.move_generation();
        self.show_config(config);
        self.move_generation();
    }

    fn move_generation(&self) {
        if let Some(word) = self.word(reg::CONFIG_GENERATION) {
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |generation| {
                Some(u32::from_le(generation).wrapping_add(1).to_le())
            });
        }
    }

    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        let index = usize::try_from(offset / 4).ok()?;
        (*self.0).as_ref().get(index)
    }
}

impl fmt::Debug for RegisterPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterPage").finish_non_exhaustive()
    }
}
