//! The MMIO bus: which register block an address belongs to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use virtio_transport::{Host, MmioTransport, VirtioDevice};

use crate::worker::{Doorbell, QUEUE_NOTIFY};

/// Memory that nobody answers for reads as ones.
const UNCLAIMED: u8 = 0xff;

/// A register block on the bus.
pub(crate) trait Registers: Send {
    /// Reads registers at `offset` within the block.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Writes registers at `offset` within the block.
    fn write(&mut self, offset: u64, data: &[u8]);
    /// Whether a driver has ever taken the device behind it.
    fn has_run(&self) -> bool {
        false
    }
    /// Stops the device behind it for good, after what it is doing at the moment; it may take `patience` to deliver what the
    /// driver has handed over.
    fn shutdown(&mut self, patience: Duration);
}

impl<D: VirtioDevice, H: Host<D::Worker>> Registers for MmioTransport<D, H> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        Self::read(self, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        Self::write(self, offset, data);
    }

    fn has_run(&self) -> bool {
        Self::has_run(self)
    }

    fn shutdown(&mut self, patience: Duration) {
        Self::shutdown(self, patience);
    }
}

/// Register blocks by address. Each has a lock of its own, so vCPUs that talk to different devices do not meet.
#[derive(Default)]
pub(crate) struct MmioBus {
    blocks: Vec<Block>,
}

struct Block {
    base: u64,
    len: u64,
    registers: Mutex<Box<dyn Registers>>,
    doorbell: Option<Arc<dyn Doorbell>>,
}

impl MmioBus {
    /// Adds a block. The plan has seen to it that none overlaps another.
    pub(crate) fn add(&mut self, base: u64, len: u64, registers: Box<dyn Registers>) {
        self.add_with_doorbell(base, len, registers, None);
    }

    /// Adds a block whose QueueNotify is a doorbell. It is rung without the block's lock: vCPUs that notify at the same
    /// time do not wait for each other.
    pub(crate) fn add_with_doorbell(
        &mut self,
        base: u64,
        len: u64,
        registers: Box<dyn Registers>,
        doorbell: Option<Arc<dyn Doorbell>>,
    ) {
        let at = self.blocks.partition_point(|block| block.base < base);
        self.blocks.insert(
            at,
            Block {
                base,
                len,
                registers: Mutex::new(registers),
                doorbell,
            },
        );
    }

    /// A guest's read of `data.len()` bytes at `address`.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some(block) => block.lock().read(address - block.base, data),
            None => data.fill(UNCLAIMED),
        }
    }

    /// A guest's write at `address`.
    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        let Some(block) = self.find(address) else { return };
        let offset = address - block.base;
        if !(offset == QUEUE_NOTIFY && block.ring()) {
            block.lock().write(offset, data);
        }
    }

    /// Whether a driver has ever taken any of the devices.
    pub(crate) fn has_run(&self) -> bool {
        self.blocks.iter().any(|block| block.lock().has_run())
    }

    /// Stops every device, in the order of their addresses. All together may take `patience` to deliver what the drivers have
    /// handed over, and each the second that [`Worker::finish`](virtio_transport::Worker::finish) allows it; what a device is
    /// doing on the host at the moment is waited for beside that, as long as it takes.
    pub(crate) fn shutdown(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for block in &self.blocks {
            block
                .lock()
                .shutdown(deadline.saturating_duration_since(Instant::now()));
        }
    }

    fn find(&self, address: u64) -> Option<&Block> {
        let after = self.blocks.partition_point(|block| block.base <= address);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        (address - block.base < block.len).then_some(block)
    }
}

impl Block {
    /// False when there is no doorbell, or nobody to hear it.
    fn ring(&self) -> bool {
        self.doorbell.as_ref().is_some_and(|doorbell| doorbell.ring())
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Registers>> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Echo(u8);

    impl Registers for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + u8::try_from(offset).unwrap());
        }
        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
        fn shutdown(&mut self, _patience: Duration) {}
    }

    fn byte_at(bus: &MmioBus, address: u64) -> u8 {
        let mut data = [0];
        bus.read(address, &mut data);
        data[0]
    }

    #[test]
    fn an_access_reaches_the_block_it_falls_into() {
        let mut bus = MmioBus::default();
        bus.add(0x2000, 0x1000, Box::new(Echo(20)));
        bus.add(0x1000, 0x10, Box::new(Echo(10)));
        assert_eq!(byte_at(&bus, 0x1003), 13);
        assert_eq!(byte_at(&bus, 0x2001), 21);
        bus.write(0x2fff, &[40]);
        assert_eq!(byte_at(&bus, 0x2000), 40);
    }

    /// Heard how often it was rung, while somebody was there.
    struct Bell {
        rung: AtomicU32,
        there: bool,
    }

    impl Doorbell for Bell {
        fn ring(&self) -> bool {
            self.rung.fetch_add(1, Ordering::Relaxed);
            self.there
        }
    }

    #[test]
    fn doorbell_is_rung_while_the_block_is_locked_and_hears_nothing_else() {
        let bell = Arc::new(Bell {
            rung: AtomicU32::new(0),
            there: true,
        });
        let mut bus = MmioBus::default();
        bus.add_with_doorbell(0x1000, 0x1000, Box::new(Echo(10)), Some(Arc::clone(&bell) as _));
        let locked = bus.blocks[0].lock();
        bus.write(0x1000 + QUEUE_NOTIFY, &[1, 0, 0, 0]);
        drop(locked);
        assert_eq!(bell.rung.load(Ordering::Relaxed), 1);
        bus.write(0x1000 + QUEUE_NOTIFY + 4, &[30]);
        assert_eq!(byte_at(&bus, 0x1000), 30);
        assert_eq!(bell.rung.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn notification_that_nobody_hears_reaches_the_registers() {
        let bell = Bell {
            rung: AtomicU32::new(0),
            there: false,
        };
        let mut bus = MmioBus::default();
        bus.add_with_doorbell(0x1000, 0x1000, Box::new(Echo(10)), Some(Arc::new(bell)));
        bus.write(0x1000 + QUEUE_NOTIFY, &[77]);
        assert_eq!(byte_at(&bus, 0x1000), 77);
    }

    #[test]
    fn unclaimed_addresses_read_as_ones_and_swallow_writes() {
        let mut bus = MmioBus::default();
        bus.add(0x1000, 0x10, Box::new(Echo(10)));
        for address in [0, 0xfff, 0x1010, u64::MAX] {
            assert_eq!(byte_at(&bus, address), 0xff);
            bus.write(address, &[1]);
        }
        assert_eq!(byte_at(&bus, 0x1000), 10);
    }
}
