//! The keyboard controller, of which two things matter: kernels reset the machine through it, and they look for a keyboard
//! behind it at boot, which takes seconds of waiting if nothing answers.
//!
//! It answers the controller's commands and acknowledges whatever is sent to the keyboard. There is no mouse.

use std::collections::VecDeque;

use virtio_transport::Trigger;

use super::bus::PortDevice;

const DATA: u16 = 0;
const STATUS_AND_COMMAND: u16 = 4;

const READ_CONTROL: u8 = 0x20;
const WRITE_CONTROL: u8 = 0x60;
const SELF_TEST: u8 = 0xaa;
const TEST_KEYBOARD_PORT: u8 = 0xab;
const READ_OUTPUT_PORT: u8 = 0xd0;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
const RESET: u8 = 0xfe;

const SELF_TEST_PASSED: u8 = 0x55;
const PORT_TEST_PASSED: u8 = 0;
const KEYBOARD_ACK: u8 = 0xfa;

const STATUS_OUTPUT_FULL: u8 = 1;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_KEYBOARD_ENABLED: u8 = 1 << 4;
const CONTROL_KEYBOARD_INTERRUPT: u8 = 1;
const CONTROL_SYSTEM: u8 = 1 << 2;

const QUEUE_LEN: usize = 16;

pub(super) struct I8042 {
    irq: Box<dyn Trigger>,
    reset: Box<dyn FnMut() + Send>,
    control: u8,
    output_port: u8,
    /// The command whose parameter comes next to the data port.
    pending: Option<u8>,
    output: VecDeque<u8>,
}

impl I8042 {
    pub(super) fn new(irq: Box<dyn Trigger>, reset: Box<dyn FnMut() + Send>) -> Self {
        Self {
            irq,
            reset,
            control: CONTROL_SYSTEM | CONTROL_KEYBOARD_INTERRUPT,
            output_port: 0,
            pending: None,
            output: VecDeque::with_capacity(QUEUE_LEN),
        }
    }

    fn status(&self) -> u8 {
        let full = if self.output.is_empty() { 0 } else { STATUS_OUTPUT_FULL };
        let command = if self.pending.is_some() { STATUS_COMMAND } else { 0 };
        STATUS_KEYBOARD_ENABLED | full | command
    }

    fn command(&mut self, command: u8) {
        self.pending = None;
        match command {
            READ_CONTROL => self.answer(self.control),
            READ_OUTPUT_PORT => self.answer(self.output_port),
            SELF_TEST => self.answer(SELF_TEST_PASSED),
            TEST_KEYBOARD_PORT => self.answer(PORT_TEST_PASSED),
            WRITE_CONTROL | WRITE_OUTPUT_PORT => self.pending = Some(command),
            RESET => (self.reset)(),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match self.pending.take() {
            Some(WRITE_CONTROL) => self.control = value,
            Some(_) => self.output_port = value,
            None => {
                self.output.clear();
                self.answer(KEYBOARD_ACK);
                self.interrupt();
            }
        }
    }

    /// A guest that does not read loses what does not fit, as with the real thing.
    fn answer(&mut self, byte: u8) {
        if self.output.len() < QUEUE_LEN {
            self.output.push_back(byte);
        }
    }

    fn interrupt(&self) {
        if self.control & CONTROL_KEYBOARD_INTERRUPT != 0
            && let Err(error) = self.irq.trigger()
        {
            tracing::debug!(%error, "cannot raise the keyboard's interrupt");
        }
    }
}

impl PortDevice for I8042 {
    fn read(&mut self, offset: u16) -> u8 {
        match offset {
            DATA => self.output.pop_front().unwrap_or(0),
            STATUS_AND_COMMAND => self.status(),
            _ => 0xff,
        }
    }

    fn write(&mut self, offset: u16, value: u8) {
        match offset {
            DATA => self.data(value),
            STATUS_AND_COMMAND => self.command(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Count;
    use super::*;

    fn device() -> (I8042, Count, Count) {
        let (irq, reset) = (Count::default(), Count::default());
        let on_reset = reset.clone();
        (
            I8042::new(Box::new(irq.clone()), Box::new(move || on_reset.add())),
            irq,
            reset,
        )
    }

    #[test]
    fn status_of_an_idle_controller_has_nothing_to_read() {
        let (mut device, ..) = device();
        assert_eq!((device.read(4), device.read(0)), (0x10, 0));
    }

    #[test]
    fn control_byte_is_read_back_as_written() {
        let (mut device, ..) = device();
        device.write(4, 0x20);
        assert_eq!((device.read(4), device.read(0), device.read(4)), (0x11, 0x05, 0x10));
        device.write(4, 0x60);
        assert_eq!(device.read(4), 0x18);
        device.write(0, 0x42);
        device.write(4, 0x20);
        assert_eq!(device.read(0), 0x42);
    }

    #[test]
    fn output_port_is_read_back_as_written() {
        let (mut device, ..) = device();
        device.write(4, 0xd1);
        device.write(0, 0xdf);
        device.write(4, 0xd0);
        assert_eq!(device.read(0), 0xdf);
    }

    #[test]
    fn tests_of_the_controller_pass() {
        let (mut device, ..) = device();
        device.write(4, 0xaa);
        device.write(4, 0xab);
        assert_eq!([device.read(0), device.read(0)], [0x55, 0]);
    }

    #[test]
    fn byte_to_the_keyboard_is_acknowledged_with_an_interrupt() {
        let (mut device, irq, _) = device();
        device.write(4, 0x20);
        device.write(0, 0xff);
        assert_eq!((irq.get(), device.read(0), device.read(4)), (1, 0xfa, 0x10));
    }

    #[test]
    fn keyboard_with_its_interrupt_off_stays_silent() {
        let (mut device, irq, _) = device();
        device.write(4, 0x60);
        device.write(0, 0x04);
        device.write(0, 0xf4);
        assert_eq!((irq.get(), device.read(0)), (0, 0xfa));
    }

    #[test]
    fn command_drops_the_one_that_waits_for_its_parameter() {
        let (mut device, ..) = device();
        device.write(4, 0x60);
        device.write(4, 0x20);
        device.write(0, 0x42);
        assert_eq!(device.read(0), 0xfa);
        device.write(4, 0x20);
        assert_eq!(device.read(0), 0x05);
    }

    #[test]
    fn reset_is_called_for_its_command_alone() {
        let (mut device, _, reset) = device();
        for command in (0..=0xff).filter(|command| *command != 0xfe) {
            device.write(4, command);
        }
        device.write(0, 0xfe);
        assert_eq!(reset.get(), 0);
        device.write(4, 0xfe);
        assert_eq!(reset.get(), 1);
    }

    #[test]
    fn answers_that_nobody_reads_are_bounded() {
        let (mut device, ..) = device();
        for _ in 0..1000 {
            device.write(4, 0xaa);
        }
        assert_eq!((0..1000).filter(|_| device.read(0) == 0x55).count(), 16);
    }
}
