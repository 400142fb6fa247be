//! The control protocol (virtio 1.3, 5.3.6.2) as a state machine without queues.
//!
//! What the device still has to say is not a queue of messages but a set for each port: saying a thing twice is saying
//! it once, and of two states only the last counts. So the driver cannot make it grow, whatever it asks for.
//!
//! A port's messages go out in the order below. That PORT_OPEN comes before PORT_NAME matters: guests look for a port by
//! its name and open it at once, and reading a port that the host has not opened gives the end of the stream.

use crate::wire::{FromDriver, ToDriver};
use crate::{Port, PortKind, Size, TerminalSize};

/// What a message of the driver means for a port's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The message is dealt with.
    Nothing,
    /// The guest has opened the port: it takes input now.
    Opened { port: usize },
    /// The guest has closed the port. What it wrote before is in the ring.
    Closed { port: usize },
    /// The message is not one that a driver may send.
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Add = 1,
    ConsolePort = 2,
    Open = 4,
    Resize = 8,
    Name = 16,
}

const IN_ORDER: [Topic; 5] = [Topic::Add, Topic::ConsolePort, Topic::Open, Topic::Resize, Topic::Name];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Topics(u8);

impl Topics {
    fn add(&mut self, topic: Topic) {
        self.0 |= topic as u8;
    }

    fn remove(&mut self, topic: Topic) {
        self.0 &= !(topic as u8);
    }

    fn first(self) -> Option<Topic> {
        IN_ORDER.into_iter().find(|topic| self.0 & *topic as u8 != 0)
    }
}

#[derive(Debug)]
struct PortControl {
    name: String,
    terminal: Option<TerminalSize>,
    /// The size that the driver was told last.
    told: Size,
    due: Topics,
    /// The driver has the port.
    ready: bool,
    /// Our side of the port is open: there may be input.
    host_open: bool,
    guest_open: bool,
}

/// A message that is due, to be confirmed with [`Control::sent`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due<'a> {
    pub(crate) port: u32,
    pub(crate) message: ToDriver<'a>,
    token: Token,
}

/// Which message of which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    index: usize,
    topic: Topic,
    size: Size,
}

impl Due<'_> {
    pub(crate) fn token(&self) -> Token {
        self.token
    }
}

/// The state of all ports since activation.
#[derive(Debug)]
pub(crate) struct Control {
    ports: Vec<PortControl>,
}

impl Control {
    pub(crate) fn new(ports: &[Port]) -> Self {
        let ports = ports.iter().map(|port| PortControl {
            name: port.name.clone(),
            terminal: match &port.kind {
                PortKind::Terminal { size } => Some(size.clone()),
                PortKind::Pipe => None,
            },
            told: Size::default(),
            due: Topics::default(),
            ready: false,
            host_open: true,
            guest_open: false,
        });
        Self { ports: ports.collect() }
    }

    /// The driver has reset the device: it knows nothing of ports. That a host's stream has ended stays so.
    pub(crate) fn restart(&mut self) {
        for port in &mut self.ports {
            port.due = Topics::default();
            port.ready = false;
            port.guest_open = false;
            port.told = Size::default();
        }
    }

    pub(crate) fn handle(&mut self, message: FromDriver) -> Event {
        match message {
            FromDriver::DeviceReady { success } => {
                if success {
                    self.ports.iter_mut().for_each(|port| port.due.add(Topic::Add));
                }
                Event::Nothing
            }
            FromDriver::PortReady { port, success } => self.port_ready(port, success),
            FromDriver::PortOpen { port, open } => self.port_open(port, open),
            FromDriver::Other { .. } => Event::Bad,
        }
    }

    fn port_ready(&mut self, port: u32, success: bool) -> Event {
        let Some((_, port)) = self.port(port) else {
            return Event::Bad;
        };
        port.ready = success;
        if !success {
            port.due = Topics::default();
            return Event::Nothing;
        }
        if port.terminal.is_some() {
            port.due.add(Topic::ConsolePort);
            // Told in any case: the driver has forgotten it if it made the port anew.
            port.told = Size::default();
        }
        port.due.add(Topic::Open);
        if !port.name.is_empty() {
            port.due.add(Topic::Name);
        }
        Event::Nothing
    }

    fn port_open(&mut self, port: u32, open: bool) -> Event {
        let Some((index, port)) = self.port(port) else {
            return Event::Bad;
        };
        let was_open = std::mem::replace(&mut port.guest_open, open);
        match (was_open, open) {
            (false, true) => Event::Opened { port: index },
            (true, false) => Event::Closed { port: index },
            (true, true) | (false, false) => Event::Nothing,
        }
    }

    fn port(&mut self, number: u32) -> Option<(usize, &mut PortControl)> {
        let index = usize::try_from(number).ok()?;
        Some((index, self.ports.get_mut(index)?))
    }

    /// The host's stream into a port has ended.
    pub(crate) fn host_closed(&mut self, index: usize) {
        if let Some(port) = self.ports.get_mut(index)
            && port.terminal.is_none()
            && std::mem::replace(&mut port.host_open, false)
            && port.ready
        {
            port.due.add(Topic::Open);
        }
    }

    /// Looks at the terminals' sizes.
    pub(crate) fn look_at_sizes(&mut self) {
        for port in &mut self.ports {
            if let Some(terminal) = &port.terminal
                && port.ready
                && terminal.get() != port.told
            {
                port.due.add(Topic::Resize);
            }
        }
    }

    /// What is to be said next.
    pub(crate) fn due(&self) -> Option<Due<'_>> {
        let (index, port, topic) = self
            .ports
            .iter()
            .enumerate()
            .find_map(|(index, port)| port.due.first().map(|topic| (index, port, topic)))?;
        let size = port.terminal.as_ref().map(TerminalSize::get).unwrap_or_default();
        let message = match topic {
            Topic::Add => ToDriver::Add,
            Topic::ConsolePort => ToDriver::ConsolePort,
            Topic::Open => ToDriver::Open(port.host_open),
            Topic::Resize => ToDriver::Resize(size),
            Topic::Name => ToDriver::Name(&port.name),
        };
        Some(Due {
            port: u32::try_from(index).ok()?,
            message,
            token: Token { index, topic, size },
        })
    }

    /// The message has gone out.
    pub(crate) fn sent(&mut self, token: Token) {
        if let Some(port) = self.ports.get_mut(token.index) {
            port.due.remove(token.topic);
            if token.topic == Topic::Resize {
                port.told = token.size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terminal(size: &TerminalSize) -> Port {
        Port {
            name: String::new(),
            kind: PortKind::Terminal { size: size.clone() },
            input: None,
            output: None,
        }
    }

    fn pipe(name: &str) -> Port {
        Port {
            name: name.into(),
            kind: PortKind::Pipe,
            input: None,
            output: None,
        }
    }

    fn say_all(control: &mut Control) -> Vec<(u32, String)> {
        let mut said = Vec::new();
        control.look_at_sizes();
        while let Some(due) = control.due() {
            said.push((due.port, format!("{:?}", due.message)));
            let token = due.token();
            control.sent(token);
        }
        said
    }

    fn ready(port: u32) -> FromDriver {
        FromDriver::PortReady { port, success: true }
    }

    #[test]
    fn device_ready_adds_every_port_in_order() {
        let mut control = Control::new(&[terminal(&TerminalSize::default()), pipe("in")]);
        control.handle(FromDriver::DeviceReady { success: true });
        assert_eq!(say_all(&mut control), [(0, "Add".into()), (1, "Add".into())]);
    }

    #[test]
    fn device_not_ready_adds_nothing() {
        let mut control = Control::new(&[pipe("in")]);
        control.handle(FromDriver::DeviceReady { success: false });
        assert_eq!(say_all(&mut control), []);
    }

    #[test]
    fn terminal_port_ready_is_made_a_console_opened_and_sized() {
        let mut control = Control::new(&[terminal(&TerminalSize::new(Size { cols: 80, rows: 24 }))]);
        control.handle(ready(0));
        let said: Vec<_> = say_all(&mut control).into_iter().map(|(_, message)| message).collect();
        assert_eq!(
            said,
            ["ConsolePort", "Open(true)", "Resize(Size { cols: 80, rows: 24 })"]
        );
    }

    #[test]
    fn terminal_of_unknown_size_is_not_sized() {
        let mut control = Control::new(&[terminal(&TerminalSize::default())]);
        control.handle(ready(0));
        assert_eq!(say_all(&mut control).len(), 2);
    }

    #[test]
    fn pipe_port_ready_is_opened_before_it_is_named() {
        let mut control = Control::new(&[pipe("in")]);
        control.handle(ready(0));
        assert_eq!(
            say_all(&mut control),
            [(0, "Open(true)".into()), (0, "Name(\"in\")".into())]
        );
    }

    #[test]
    fn end_of_input_closes_the_port_once() {
        let mut control = Control::new(&[pipe("")]);
        control.handle(ready(0));
        say_all(&mut control);
        control.host_closed(0);
        control.host_closed(0);
        assert_eq!(say_all(&mut control), [(0, "Open(false)".into())]);
        control.host_closed(0);
        assert_eq!(say_all(&mut control), []);
    }

    #[test]
    fn end_of_input_of_a_terminal_is_not_told() {
        let mut control = Control::new(&[terminal(&TerminalSize::default())]);
        control.handle(ready(0));
        say_all(&mut control);
        control.host_closed(0);
        assert_eq!(say_all(&mut control), []);
    }

    #[test]
    fn resize_is_told_once_per_change_and_only_when_the_driver_has_the_port() {
        let size = TerminalSize::new(Size { cols: 80, rows: 24 });
        let mut control = Control::new(&[terminal(&size)]);
        assert_eq!(say_all(&mut control), []);
        control.handle(ready(0));
        say_all(&mut control);
        size.set(Size { cols: 100, rows: 30 });
        assert_eq!(
            say_all(&mut control),
            [(0, "Resize(Size { cols: 100, rows: 30 })".into())]
        );
        assert_eq!(say_all(&mut control), []);
    }

    #[test]
    fn size_that_changes_while_a_message_is_made_is_told_again() {
        let size = TerminalSize::new(Size { cols: 80, rows: 24 });
        let mut control = Control::new(&[terminal(&size)]);
        control.handle(ready(0));
        control.sent(control.due().unwrap().token());
        control.sent(control.due().unwrap().token());
        control.look_at_sizes();
        let token = control.due().unwrap().token();
        size.set(Size { cols: 1, rows: 1 });
        control.sent(token);
        assert_eq!(say_all(&mut control), [(0, "Resize(Size { cols: 1, rows: 1 })".into())]);
    }

    #[test]
    fn port_open_tells_changes_only() {
        let mut control = Control::new(&[pipe("")]);
        let open = |open| FromDriver::PortOpen { port: 0, open };
        assert_eq!(control.handle(open(false)), Event::Nothing);
        assert_eq!(control.handle(open(true)), Event::Opened { port: 0 });
        assert_eq!(control.handle(open(true)), Event::Nothing);
        assert_eq!(control.handle(open(false)), Event::Closed { port: 0 });
    }

    #[test]
    fn port_that_the_driver_could_not_add_is_left_alone() {
        let mut control = Control::new(&[pipe("in")]);
        control.handle(ready(0));
        control.handle(FromDriver::PortReady {
            port: 0,
            success: false,
        });
        assert_eq!(say_all(&mut control), []);
    }

    #[test]
    fn restart_forgets_the_driver_but_not_the_end_of_input() {
        let mut control = Control::new(&[pipe("")]);
        control.handle(ready(0));
        control.handle(FromDriver::PortOpen { port: 0, open: true });
        control.host_closed(0);
        control.restart();
        assert_eq!(say_all(&mut control), []);
        assert_eq!(
            control.handle(FromDriver::PortOpen { port: 0, open: true }),
            Event::Opened { port: 0 }
        );
        control.handle(ready(0));
        assert_eq!(say_all(&mut control), [(0, "Open(false)".into())]);
    }

    proptest! {
        #[test]
        fn any_messages_leave_a_bounded_number_of_answers(messages in proptest::collection::vec(any::<[u8; 8]>(), 0..500)) {
            let mut control = Control::new(&[terminal(&TerminalSize::new(Size { cols: 1, rows: 1 })), pipe("x"), pipe("y")]);
            for mut bytes in messages {
                // Ports and events near those that exist, and far ones.
                if bytes[7] < 200 {
                    bytes[0] %= 4;
                    bytes[1..4].fill(0);
                    bytes[4] %= 9;
                    bytes[5] = 0;
                }
                let known = u32::from_le_bytes(bytes[..4].try_into().unwrap()) < 3;
                let event = control.handle(FromDriver::parse(bytes));
                let names_a_port = matches!(event, Event::Opened { .. } | Event::Closed { .. });
                prop_assert!(known || !names_a_port);
            }
            prop_assert!(say_all(&mut control).len() <= 3 * IN_ORDER.len());
        }
    }
}
