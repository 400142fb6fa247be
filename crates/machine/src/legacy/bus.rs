//! The port bus: which device a port belongs to.

use std::sync::{Mutex, PoisonError};

/// A port that nobody answers for reads as ones.
const UNCLAIMED: u8 = 0xff;

/// A device with registers of one byte each.
pub(super) trait PortDevice: Send {
    /// Reads the register at `offset` from the device's first port.
    fn read(&mut self, offset: u16) -> u8;
    /// Writes it.
    fn write(&mut self, offset: u16, value: u8);
}

/// Devices by port. Each has a lock of its own.
#[derive(Default)]
pub(crate) struct PortBus {
    devices: Vec<Claim>,
}

struct Claim {
    first: u16,
    len: u16,
    device: Mutex<Box<dyn PortDevice>>,
}

impl PortBus {
    /// Adds a device. Where it overlaps another, the one added last answers.
    pub(super) fn add(&mut self, first: u16, len: u16, device: Box<dyn PortDevice>) {
        self.devices.insert(
            0,
            Claim {
                first,
                len,
                device: Mutex::new(device),
            },
        );
    }

    /// A guest's read. KVM does not say whether `data` is one wide item or several of a string instruction; all devices here
    /// have registers of one byte, so each byte is a read of the port.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        match self.find(port) {
            Some((offset, claim)) => {
                let mut device = claim.device.lock().unwrap_or_else(PoisonError::into_inner);
                data.fill_with(|| device.read(offset));
            }
            None => data.fill(UNCLAIMED),
        }
    }

    /// A guest's write; each byte is a write of the port.
    pub(crate) fn write(&self, port: u16, data: &[u8]) {
        if let Some((offset, claim)) = self.find(port) {
            let mut device = claim.device.lock().unwrap_or_else(PoisonError::into_inner);
            data.iter().for_each(|byte| device.write(offset, *byte));
        }
    }

    fn find(&self, port: u16) -> Option<(u16, &Claim)> {
        self.devices.iter().find_map(|claim| {
            let offset = port.checked_sub(claim.first)?;
            (offset < claim.len).then_some((offset, claim))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sum(u8);

    impl PortDevice for Sum {
        fn read(&mut self, offset: u16) -> u8 {
            self.0 += 1;
            self.0 + offset.to_le_bytes()[0]
        }
        fn write(&mut self, _offset: u16, value: u8) {
            self.0 += value;
        }
    }

    #[test]
    fn string_access_is_one_access_per_byte() {
        let mut bus = PortBus::default();
        bus.add(0x10, 4, Box::new(Sum::default()));
        bus.write(0x10, &[1, 2, 3]);
        let mut data = [0; 3];
        bus.read(0x12, &mut data);
        assert_eq!(data, [9, 10, 11]);
    }

    #[test]
    fn device_claims_its_ports_and_no_others() {
        let mut bus = PortBus::default();
        bus.add(0xfffe, 2, Box::new(Sum::default()));
        let mut data = [0; 2];
        bus.read(0xfffd, &mut data);
        assert_eq!(data, [0xff; 2]);
        bus.read(0xffff, &mut data);
        assert_eq!(data, [2, 3]);
    }

    #[test]
    fn overlapped_port_is_answered_by_the_later_device() {
        let mut bus = PortBus::default();
        bus.add(0x60, 5, Box::new(Sum(100)));
        bus.add(0x61, 1, Box::new(Sum(0)));
        let mut data = [0];
        bus.read(0x61, &mut data);
        assert_eq!(data, [1]);
        bus.read(0x62, &mut data);
        assert_eq!(data, [103]);
    }
}
