//! System control port B. Only a machine without KVM's PIT gets here; a kernel that calibrates against the PIT waits for its
//! output bit to change, so it changes.

use super::bus::PortDevice;

const TIMER_2_OUTPUT: u8 = 1 << 5;

#[derive(Default)]
pub(super) struct PortB(u8);

impl PortDevice for PortB {
    fn read(&mut self, _offset: u16) -> u8 {
        self.0 ^= TIMER_2_OUTPUT;
        self.0
    }

    fn write(&mut self, _offset: u16, value: u8) {
        self.0 = self.0 & TIMER_2_OUTPUT | value & !TIMER_2_OUTPUT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_output_changes_with_each_read_and_the_rest_is_kept() {
        let mut port = PortB::default();
        port.write(0, 0xff);
        assert_eq!([port.read(0), port.read(0), port.read(0)], [0xff, 0xdf, 0xff]);
        port.write(0, 0);
        assert_eq!(port.read(0), 0);
    }
}
