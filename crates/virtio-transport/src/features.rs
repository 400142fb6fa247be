//! Feature negotiation: 64 bits through 32-bit windows (virtio 1.3, 2.2 and 4.2.2).

use crate::registers::{F_UNSUPPORTED, F_VERSION_1, high, low, set_high, set_low};

/// What a device offers through this transport.
pub(crate) fn offered(device: u64) -> u64 {
    (device & !F_UNSUPPORTED) | F_VERSION_1
}

/// The selectors, and the driver's choice as it wrote it.
#[derive(Debug, Default)]
pub(crate) struct Features {
    pub(crate) device_sel: u32,
    pub(crate) driver_sel: u32,
    accepted: u64,
    /// A bit above 63 was set. There are none to offer.
    beyond: bool,
}

impl Features {
    pub(crate) fn read_offered(&self, offered: u64) -> u32 {
        match self.device_sel {
            0 => low(offered),
            1 => high(offered),
            _ => 0,
        }
    }

    pub(crate) fn write_accepted(&mut self, value: u32) {
        match self.driver_sel {
            0 => set_low(&mut self.accepted, value),
            1 => set_high(&mut self.accepted, value),
            _ => self.beyond |= value != 0,
        }
    }

    /// The bits that both sides agree on; `None` when the driver took what was not offered, or is a legacy driver.
    pub(crate) fn agreed(&self, offered: u64) -> Option<u64> {
        let unknown = self.beyond || self.accepted & !offered != 0;
        (!unknown && self.accepted & F_VERSION_1 != 0).then_some(self.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(bits: u64) -> Features {
        Features {
            accepted: bits,
            ..Features::default()
        }
    }

    #[test]
    fn offered_adds_version_1_and_drops_what_needs_the_transport() {
        assert_eq!(offered(0b101 | F_UNSUPPORTED), 0b101 | 1 << 32);
    }

    #[test]
    fn agreed_over_subsets_needs_version_1_and_nothing_unknown() {
        let offered = 0b11 | 1 << 32;
        let table = [
            (1 << 32, true),
            (0b01 | 1 << 32, true),
            (0b11 | 1 << 32, true),
            (0, false),
            (0b11, false),
            (0b100 | 1 << 32, false),
            (1 << 63 | 1 << 32, false),
        ];
        for (bits, fine) in table {
            assert_eq!(accepting(bits).agreed(offered), fine.then_some(bits), "{bits:#x}");
        }
    }

    #[test]
    fn windows_beyond_the_second_read_zero_and_accept_nothing() {
        let mut features = Features {
            device_sel: 2,
            driver_sel: 2,
            ..accepting(1 << 32)
        };

        assert_eq!(features.read_offered(u64::MAX), 0);
        features.write_accepted(0);
        assert!(features.agreed(1 << 32).is_some());
        features.write_accepted(1);
        assert_eq!(features.agreed(1 << 32), None);
    }
}
