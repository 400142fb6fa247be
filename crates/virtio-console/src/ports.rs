//! The ports of one console: what outlives a reset by the driver.

use std::sync::Arc;

use crate::control::Control;
use crate::error::MAX_PORTS;
use crate::input::Input;
use crate::output::OutputSide;
use crate::port::MAX_NAME_LEN;
use crate::wire::{F_MULTIPORT, F_SIZE, VIRTIO_F_EVENT_IDX, config_space};
use crate::{ConfigError, ConsoleControl, Port, PortKind, Size, TerminalSize};

/// Buffers for data. The guest fills every receive queue with pages: 128 KiB for each port.
const DATA_QUEUE_SIZE: u16 = 32;

/// Buffers for a direction that a port does not have, and for control messages.
const SMALL_QUEUE_SIZE: u16 = 8;

/// The ports of a console, checked. Port 0 is the first.
pub struct Ports {
    pub(crate) control: Control,
    pub(crate) states: Vec<PortState>,
    queue_sizes: Vec<u16>,
    terminals: Arc<[TerminalSize]>,
    first_is_terminal: bool,
    pub(crate) warned: Warned,
}

/// What the log was told of the driver: once, however often it starts again.
#[derive(Default)]
pub(crate) struct Warned {
    pub(crate) bad_control: bool,
    pub(crate) broken_ring: bool,
}

pub(crate) struct PortState {
    pub(crate) input: Input,
    pub(crate) output: OutputSide,
    pub(crate) is_pipe: bool,
}

impl Ports {
    /// Checks the ports and takes them over.
    ///
    /// # Errors
    /// When there are none, too many, or names that the guest could not tell apart or not take.
    pub fn new(ports: Vec<Port>) -> Result<Self, ConfigError> {
        check(&ports)?;
        let terminals: Arc<[_]> = ports.iter().filter_map(terminal_size).cloned().collect();
        Ok(Self {
            control: Control::new(&ports),
            queue_sizes: queue_sizes(&ports),
            first_is_terminal: ports.first().and_then(terminal_size).is_some(),
            terminals,
            warned: Warned::default(),
            states: ports.into_iter().map(PortState::new).collect(),
        })
    }

    /// The largest size of each queue, in the order of the standard (virtio 1.3, 5.3.2).
    pub fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    /// The feature bits to offer, VIRTIO_F_VERSION_1 apart.
    pub fn features(&self) -> u64 {
        let size = if self.first_is_terminal { F_SIZE } else { 0 };
        F_MULTIPORT | VIRTIO_F_EVENT_IDX | size
    }

    /// Config space (virtio 1.3, 5.3.4).
    pub fn config_space(&self) -> [u8; 12] {
        config_space(self.console_size(), self.count())
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn console_size(&self) -> Size {
        self.console_terminal().map(TerminalSize::get).unwrap_or_default()
    }

    /// The terminal whose size config space has: that of port 0.
    pub(crate) fn console_terminal(&self) -> Option<&TerminalSize> {
        self.terminals.first().filter(|_| self.first_is_terminal)
    }

    /// A handle to resize the terminals with, from any thread.
    pub fn console_control(&self) -> ConsoleControl {
        ConsoleControl::new(Arc::clone(&self.terminals))
    }
}

impl PortState {
    fn new(port: Port) -> Self {
        Self {
            input: Input::new(port.input),
            output: OutputSide::new(port.output),
            is_pipe: matches!(port.kind, PortKind::Pipe),
        }
    }
}

fn terminal_size(port: &Port) -> Option<&TerminalSize> {
    match &port.kind {
        PortKind::Terminal { size } => Some(size),
        PortKind::Pipe => None,
    }
}

fn check(ports: &[Port]) -> Result<(), ConfigError> {
    if ports.is_empty() {
        return Err(ConfigError::NoPorts);
    }
    if ports.len() > MAX_PORTS {
        return Err(ConfigError::TooManyPorts { count: ports.len() });
    }
    for (second, port) in ports.iter().enumerate() {
        let name = &port.name;
        if name.len() > MAX_NAME_LEN || name.chars().any(char::is_control) {
            return Err(ConfigError::BadName {
                port: second,
                name: name.clone(),
            });
        }
        let first = ports.iter().take(second).position(|earlier| earlier.name == *name);
        if let Some(first) = first.filter(|_| !name.is_empty()) {
            return Err(ConfigError::DuplicateName {
                first,
                second,
                name: name.clone(),
            });
        }
    }
    Ok(())
}

fn queue_sizes(ports: &[Port]) -> Vec<u16> {
    let size = |used| if used { DATA_QUEUE_SIZE } else { SMALL_QUEUE_SIZE };
    let mut pairs = ports
        .iter()
        .map(|port| [size(port.input.is_some()), size(port.output.is_some())]);
    let first = pairs.next();
    let control = [SMALL_QUEUE_SIZE, DATA_QUEUE_SIZE];
    first.into_iter().chain([control]).chain(pairs).flatten().collect()
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open_inputs = self.states.iter().filter(|port| port.input.is_open()).count();
        f.debug_struct("Ports")
            .field("count", &self.states.len())
            .field("open_inputs", &open_inputs)
            .finish()
    }
}
