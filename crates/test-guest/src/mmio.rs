//! The driver of a virtio-mmio register block (virtio 1.3, 4.2).

use crate::SplitRing;

/// Register offsets (virtio 1.3, 4.2.2).
#[expect(missing_docs, reason = "the names are those of the standard")]
pub mod register {
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHM_SEL: u64 = 0x0ac;
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    pub const SHM_LEN_HIGH: u64 = 0x0b4;
    pub const SHM_BASE_LOW: u64 = 0x0b8;
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    pub const QUEUE_RESET: u64 = 0x0c0;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// Device status bits (virtio 1.3, 2.1).
#[expect(missing_docs, reason = "the names are those of the standard")]
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

const VERSION_1: u64 = 1 << 32;

/// Whatever answers accesses to a register block.
pub trait Registers {
    /// The guest reads `data.len()` bytes at `offset`.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// The guest writes `data` to `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// One access, for register blocks that are given as a closure.
#[derive(Debug)]
pub enum Access<'a> {
    /// A read of that many bytes at the offset.
    Read(u64, &'a mut [u8]),
    /// A write to the offset.
    Write(u64, &'a [u8]),
}

impl<F: FnMut(Access<'_>)> Registers for F {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self(Access::Read(offset, data));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self(Access::Write(offset, data));
    }
}

/// A driver: the steps of the standard, each by itself so that a test can leave one out.
#[derive(Debug)]
pub struct MmioDriver<R> {
    /// The register block.
    pub registers: R,
}

impl<R: Registers> MmioDriver<R> {
    /// A driver that has done nothing yet.
    pub fn new(registers: R) -> Self {
        Self { registers }
    }

    /// Reads a 32-bit register.
    pub fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.registers.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes a 32-bit register.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.registers.write(offset, &value.to_le_bytes());
    }

    /// Reads the device status.
    pub fn status(&mut self) -> u32 {
        self.read(register::STATUS)
    }

    /// Sets one more bit of the device status and returns what the device made of it.
    pub fn add_status(&mut self, bit: u32) -> u32 {
        let status = self.status();
        self.write(register::STATUS, status | bit);
        self.status()
    }

    /// Resets the device.
    pub fn reset(&mut self) {
        self.write(register::STATUS, 0);
    }

    /// The 64 offered feature bits.
    pub fn device_features(&mut self) -> u64 {
        self.write(register::DEVICE_FEATURES_SEL, 0);
        let low = self.read(register::DEVICE_FEATURES);
        self.write(register::DEVICE_FEATURES_SEL, 1);
        let high = self.read(register::DEVICE_FEATURES);
        u64::from(low) | u64::from(high) << 32
    }

    /// Writes 64 feature bits as they are.
    pub fn set_driver_features(&mut self, features: u64) {
        let [l0, l1, l2, l3, h0, h1, h2, h3] = features.to_le_bytes();
        self.write(register::DRIVER_FEATURES_SEL, 0);
        self.write(register::DRIVER_FEATURES, u32::from_le_bytes([l0, l1, l2, l3]));
        self.write(register::DRIVER_FEATURES_SEL, 1);
        self.write(register::DRIVER_FEATURES, u32::from_le_bytes([h0, h1, h2, h3]));
    }

    /// Steps 1 to 6 of 3.1.1: reset, ACKNOWLEDGE, DRIVER, those of the `wanted` features that are offered (VERSION_1 is
    /// always wanted), FEATURES_OK. Returns what was agreed.
    ///
    /// # Panics
    /// When the device does not keep FEATURES_OK.
    pub fn negotiate(&mut self, wanted: u64) -> u64 {
        self.reset();
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        let agreed = self.device_features() & (wanted | VERSION_1);
        self.set_driver_features(agreed);
        let seen = self.add_status(status::FEATURES_OK);
        assert_ne!(seen & status::FEATURES_OK, 0, "the device refused {agreed:#x}");
        agreed
    }

    /// Configures one queue and makes it ready.
    pub fn set_up_queue(&mut self, index: u32, ring: &SplitRing) {
        self.configure_queue(index, ring);
        self.write(register::QUEUE_READY, 1);
    }

    /// Configures one queue and leaves it disabled.
    pub fn configure_queue(&mut self, index: u32, ring: &SplitRing) {
        self.write(register::QUEUE_SEL, index);
        self.write(register::QUEUE_SIZE, u32::from(ring.size()));
        self.write_address(register::QUEUE_DESC_LOW, ring.desc_table());
        self.write_address(register::QUEUE_DRIVER_LOW, ring.avail_ring());
        self.write_address(register::QUEUE_DEVICE_LOW, ring.used_ring());
    }

    /// Writes a 64-bit address to a pair of registers.
    pub fn write_address(&mut self, low: u64, address: u64) {
        let [l0, l1, l2, l3, h0, h1, h2, h3] = address.to_le_bytes();
        self.write(low, u32::from_le_bytes([l0, l1, l2, l3]));
        self.write(low + 4, u32::from_le_bytes([h0, h1, h2, h3]));
    }

    /// The last step: DRIVER_OK. Returns the status after it.
    pub fn driver_ok(&mut self) -> u32 {
        self.add_status(status::DRIVER_OK)
    }

    /// All steps of 3.1.1, with one ring per queue from queue 0 on. Returns what was agreed.
    ///
    /// # Panics
    /// When the device does not start.
    pub fn start(&mut self, wanted: u64, rings: &[&SplitRing]) -> u64 {
        let agreed = self.negotiate(wanted);
        for (index, ring) in (0..).zip(rings) {
            self.set_up_queue(index, ring);
        }
        let seen = self.driver_ok();
        let running = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        assert_eq!(seen, running, "the device did not start");
        agreed
    }

    /// Notifies the device of new buffers on a queue.
    pub fn notify(&mut self, queue: u32) {
        self.write(register::QUEUE_NOTIFY, queue);
    }

    /// What an interrupt handler does first: reads the interrupt status and acknowledges all of it. Bit 0 is the used
    /// rings, bit 1 the configuration.
    pub fn take_interrupt(&mut self) -> u32 {
        let bits = self.read(register::INTERRUPT_STATUS);
        self.write(register::INTERRUPT_ACK, bits);
        bits
    }

    /// Reads config space in one access.
    pub fn config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.registers.read(register::CONFIG + offset, &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_address_goes_to_both_halves_in_order() {
        let mut writes = Vec::new();

        MmioDriver::new(|access: Access<'_>| {
            if let Access::Write(offset, data) = access {
                writes.push((offset, data.to_vec()));
            }
        })
        .write_address(register::QUEUE_DESC_LOW, 0x0102_0304_0506_0708);

        assert_eq!(writes, [(0x80, vec![8, 7, 6, 5]), (0x84, vec![4, 3, 2, 1])]);
    }
}
