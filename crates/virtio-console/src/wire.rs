//! Control messages and config space (virtio 1.3, 5.3.4 and 5.3.6.2).

use crate::Size;

/// VIRTIO_CONSOLE_F_SIZE: config space has the size of the console.
pub const F_SIZE: u64 = 1 << 0;
/// VIRTIO_CONSOLE_F_MULTIPORT: there are control queues, and perhaps more than one port.
pub const F_MULTIPORT: u64 = 1 << 1;
/// virtio 1.3, 2.7.10.
pub(crate) const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;

/// The device ID (virtio 1.3, 5.3.1).
pub const DEVICE_ID: u32 = 3;

const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Length of a control message without what some carry behind it.
pub(crate) const MESSAGE_LEN: usize = 8;

/// What the driver says. A value other than 0 is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromDriver {
    DeviceReady {
        success: bool,
    },
    PortReady {
        port: u32,
        success: bool,
    },
    PortOpen {
        port: u32,
        open: bool,
    },
    /// An event that a driver does not send, or that is not in the standard.
    Other {
        event: u16,
    },
}

impl FromDriver {
    pub(crate) fn parse(bytes: [u8; MESSAGE_LEN]) -> Self {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = bytes;
        let port = u32::from_le_bytes([p0, p1, p2, p3]);
        let value = u16::from_le_bytes([v0, v1]) != 0;
        match u16::from_le_bytes([e0, e1]) {
            DEVICE_READY => Self::DeviceReady { success: value },
            PORT_READY => Self::PortReady { port, success: value },
            PORT_OPEN => Self::PortOpen { port, open: value },
            event => Self::Other { event },
        }
    }
}

/// What the device says about one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToDriver<'a> {
    Add,
    ConsolePort,
    Open(bool),
    Resize(Size),
    Name(&'a str),
}

impl ToDriver<'_> {
    pub(crate) fn emit(self, port: u32, into: &mut Vec<u8>) {
        let (event, value) = match self {
            Self::Add => (DEVICE_ADD, 0_u16),
            Self::ConsolePort => (CONSOLE_PORT, 1),
            Self::Open(open) => (PORT_OPEN, u16::from(open)),
            Self::Resize(_) => (RESIZE, 0),
            Self::Name(_) => (PORT_NAME, 1),
        };
        into.clear();
        into.extend(port.to_le_bytes());
        into.extend(event.to_le_bytes());
        into.extend(value.to_le_bytes());
        match self {
            Self::Resize(Size { cols, rows }) => {
                into.extend(cols.to_le_bytes());
                into.extend(rows.to_le_bytes());
            }
            Self::Name(name) => into.extend(name.as_bytes()),
            Self::Add | Self::ConsolePort | Self::Open(_) => {}
        }
    }
}

/// `struct virtio_console_config`: cols, rows, max_nr_ports; emerg_wr reads as 0, since it is not offered.
pub(crate) fn config_space(size: Size, port_count: u32) -> [u8; 12] {
    let mut config = [0; 12];
    let (cols, rest) = config.split_at_mut(2);
    let (rows, rest) = rest.split_at_mut(2);
    let (ports, _) = rest.split_at_mut(4);
    cols.copy_from_slice(&size.cols.to_le_bytes());
    rows.copy_from_slice(&size.rows.to_le_bytes());
    ports.copy_from_slice(&port_count.to_le_bytes());
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_from_driver_have_the_layout_of_the_standard() {
        for (bytes, message) in [
            ([0, 0, 0, 0, 0, 0, 1, 0], FromDriver::DeviceReady { success: true }),
            (
                [2, 1, 0, 0, 3, 0, 0, 0],
                FromDriver::PortReady {
                    port: 0x102,
                    success: false,
                },
            ),
            ([1, 0, 0, 0, 6, 0, 0, 1], FromDriver::PortOpen { port: 1, open: true }),
            ([1, 0, 0, 0, 5, 0, 1, 0], FromDriver::Other { event: 5 }),
            ([255; 8], FromDriver::Other { event: 0xffff }),
        ] {
            assert_eq!(FromDriver::parse(bytes), message);
        }
    }

    #[test]
    fn messages_to_driver_have_the_layout_of_the_standard() {
        let mut bytes = Vec::new();
        for (message, expected) in [
            (ToDriver::Add, &[1, 0, 0, 0, 1, 0, 0, 0][..]),
            (ToDriver::ConsolePort, &[1, 0, 0, 0, 4, 0, 1, 0]),
            (ToDriver::Open(true), &[1, 0, 0, 0, 6, 0, 1, 0]),
            (ToDriver::Open(false), &[1, 0, 0, 0, 6, 0, 0, 0]),
            (
                ToDriver::Resize(Size { cols: 80, rows: 24 }),
                &[1, 0, 0, 0, 5, 0, 0, 0, 80, 0, 24, 0],
            ),
            (ToDriver::Name("ab"), &[1, 0, 0, 0, 7, 0, 1, 0, b'a', b'b']),
        ] {
            message.emit(1, &mut bytes);
            assert_eq!(bytes, expected, "{message:?}");
        }
    }

    #[test]
    fn config_space_has_the_layout_of_the_standard() {
        assert_eq!(
            config_space(Size { cols: 80, rows: 24 }, 4),
            [80, 0, 24, 0, 4, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}
