//! The few port I/O devices of a PC that a kernel talks to though it finds no firmware: i8042, real-time clock, COM1.
//!
//! PIC, PIT and the speaker's port are in the kernel with KVM's own interrupt controllers and never get here.

mod bus;
mod i8042;
mod port_b;
mod rtc;
mod serial;

use std::io::Write;
use std::time::SystemTime;

use boot_params::Region;
use virtio_transport::Trigger;

pub(crate) use bus::PortBus;
use i8042::I8042;
use port_b::PortB;
use rtc::Rtc;
use serial::Com1;

/// What the devices are connected to.
pub(crate) struct Legacy<'a> {
    /// Called when the guest resets the machine.
    pub(crate) reset: Box<dyn FnMut() + Send>,
    /// IRQ line 1.
    pub(crate) keyboard: Box<dyn Trigger>,
    /// COM1 with IRQ line 4; without it the ports are unclaimed and a guest finds no UART.
    pub(crate) com1: Option<Com1Wiring>,
    /// What the real-time clock shows, as UTC.
    pub(crate) clock: Box<dyn Fn() -> SystemTime + Send>,
    /// RAM, whose size the clock's memory tells.
    pub(crate) ram: &'a [Region],
}

/// Where COM1 leads.
pub(crate) struct Com1Wiring {
    /// Gets each byte as the guest writes it, on the vCPU's thread: a writer that blocks stops that vCPU.
    pub(crate) output: Box<dyn Write + Send>,
    /// IRQ line 4.
    pub(crate) irq: Box<dyn Trigger>,
}

/// The bus with all devices on it.
pub(crate) fn ports(legacy: Legacy<'_>) -> PortBus {
    let mut bus = PortBus::default();
    bus.add(0x60, 5, Box::new(I8042::new(legacy.keyboard, legacy.reset)));
    bus.add(0x61, 1, Box::new(PortB::default()));
    bus.add(0x70, 2, Box::new(Rtc::new(legacy.clock, legacy.ram)));
    if let Some(Com1Wiring { output, irq }) = legacy.com1 {
        bus.add(0x3f8, 8, Box::new(Com1::new(output, irq)));
    }
    bus
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    /// Counts what is raised.
    #[derive(Clone, Default)]
    pub(super) struct Count(Arc<AtomicU32>);

    impl Count {
        pub(super) fn get(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }

        pub(super) fn add(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Trigger for Count {
        fn trigger(&self) -> io::Result<()> {
            self.add();
            Ok(())
        }
    }

    fn legacy(reset: &Count, com1: Option<Com1Wiring>) -> PortBus {
        let reset = reset.clone();
        ports(Legacy {
            reset: Box::new(move || reset.add()),
            keyboard: Box::new(Count::default()),
            com1,
            clock: Box::new(|| UNIX_EPOCH + Duration::from_secs(59)),
            ram: &[Region::new(0, 64 << 20)],
        })
    }

    fn read(bus: &PortBus, port: u16) -> u8 {
        let mut data = [0];
        bus.read(port, &mut data);
        data[0]
    }

    #[test]
    fn reset_command_reaches_the_machine() {
        let reset = Count::default();
        let bus = legacy(&reset, None);
        bus.write(0x60, &[0xfe]);
        bus.write(0x61, &[0xfe]);
        assert_eq!(reset.get(), 0);
        bus.write(0x64, &[0xfe]);
        assert_eq!(reset.get(), 1);
    }

    #[test]
    fn each_device_answers_at_its_ports() {
        let bus = legacy(&Count::default(), None);
        bus.write(0x70, &[0x00]);
        assert_eq!(read(&bus, 0x71), 0x59);
        assert_ne!(read(&bus, 0x61) & 0x20, read(&bus, 0x61) & 0x20);
        assert_eq!(read(&bus, 0x64) & 1, 0);
    }

    #[test]
    fn com_ports_are_there_only_when_they_are_wired() {
        let bare = legacy(&Count::default(), None);
        let com1 = Com1Wiring {
            output: Box::new(io::sink()),
            irq: Box::new(Count::default()),
        };
        let wired = legacy(&Count::default(), Some(com1));
        for port in [0x3fd, 0x2fd, 0x3ed, 0x2ed] {
            assert_eq!(read(&bare, port), 0xff);
        }
        assert_eq!(read(&wired, 0x3fd), 0x60);
        assert_eq!(read(&wired, 0x2fd), 0xff);
    }

    #[test]
    fn every_port_stands_every_access() {
        let com1 = Com1Wiring {
            output: Box::new(io::sink()),
            irq: Box::new(Count::default()),
        };
        let bus = legacy(&Count::default(), Some(com1));
        for port in 0..=u16::MAX {
            for len in [0, 1, 2, 4, 64] {
                bus.write(port, &vec![0xa5; len]);
                bus.read(port, &mut vec![0; len]);
            }
        }
    }
}
