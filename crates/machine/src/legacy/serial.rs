//! COM1: a 16550 whose output goes to a writer. It has no input.

use std::io::{self, Write};

use virtio_transport::Trigger;
use vm_superio::serial::{NoEvents, Serial};

use super::bus::PortDevice;

pub(super) struct Com1 {
    uart: Serial<Line, NoEvents, Box<dyn Write + Send>>,
    /// Whether it was said that output is lost.
    complained: bool,
}

struct Line(Box<dyn Trigger>);

impl vm_superio::Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.trigger()
    }
}

impl Com1 {
    pub(super) fn new(output: Box<dyn Write + Send>, irq: Box<dyn Trigger>) -> Self {
        Self {
            uart: Serial::new(Line(irq), output),
            complained: false,
        }
    }
}

impl PortDevice for Com1 {
    fn read(&mut self, offset: u16) -> u8 {
        u8::try_from(offset).map_or(0xff, |offset| self.uart.read(offset))
    }

    fn write(&mut self, offset: u16, value: u8) {
        let Ok(offset) = u8::try_from(offset) else { return };
        if let Err(error) = self.uart.write(offset, value)
            && !self.complained
        {
            self.complained = true;
            tracing::warn!(%error, "output of the serial port is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Count;
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_written_reach_the_output_and_the_driver_is_told() {
        let (output, irq) = (Output::default(), Count::default());
        let mut com1 = Com1::new(Box::new(output.clone()), Box::new(irq.clone()));
        com1.write(1, 2);
        com1.read(2);
        for byte in b"hi" {
            com1.write(0, *byte);
            com1.read(2);
        }
        assert_eq!(*output.0.lock().unwrap(), b"hi");
        assert_eq!(irq.get(), 3);
    }

    #[test]
    fn output_that_cannot_be_written_does_not_stop_the_driver() {
        let irq = Count::default();
        let mut com1 = Com1::new(Box::new(Broken), Box::new(irq.clone()));
        com1.write(1, 2);
        com1.read(2);
        com1.write(0, b'x');
        assert_eq!((irq.get(), com1.read(5), com1.complained), (2, 0x60, true));
    }

    #[test]
    fn input_of_the_loop_test_is_bounded() {
        let mut com1 = Com1::new(Box::new(Broken), Box::new(Count::default()));
        com1.write(4, 0x10);
        for _ in 0..1000 {
            com1.write(0, b'x');
        }
        assert_eq!((0..1000).filter(|_| com1.read(0) == b'x').count(), 64);
    }
}
