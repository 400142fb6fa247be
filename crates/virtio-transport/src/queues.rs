//! The queue registers: what the driver wrote, unchecked until DRIVER_OK.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use virtio_queue::{Queue, QueueState, QueueT};
use virtio_ring::Ring;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::registers::{
    F_EVENT_IDX, F_INDIRECT_DESC, QUEUE_DESC_HIGH, QUEUE_DESC_LOW, QUEUE_DEVICE_HIGH, QUEUE_DEVICE_LOW,
    QUEUE_DRIVER_HIGH, QUEUE_DRIVER_LOW, QUEUE_READY, QUEUE_SIZE, set_high, set_low,
};

/// A queue that the driver made ready and that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("queue {index}: size {size} of at most {max_size}, rings at {desc:#x}, {avail:#x}, {used:#x}")]
pub(crate) struct InvalidQueue {
    index: usize,
    size: u32,
    max_size: u16,
    desc: u64,
    avail: u64,
    used: u64,
}

/// All queues of a device, and which one the registers show.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) selected: u32,
    queues: Vec<QueueRegisters>,
}

/// The registers of one queue. Sizes and addresses are kept as written, so that a wrong value is seen at DRIVER_OK and
/// not replaced by an earlier one.
#[derive(Debug)]
struct QueueRegisters {
    max_size: u16,
    size: u32,
    ready: bool,
    desc: u64,
    avail: u64,
    used: u64,
    /// Malformed chains since the transport was made: reset does not clear it, or each one would be a line in the log.
    malformed: Arc<AtomicU64>,
}

impl Queues {
    pub(crate) fn new(max_sizes: &[u16]) -> Self {
        Self {
            selected: 0,
            queues: max_sizes
                .iter()
                .map(|&max_size| QueueRegisters::new(max_size))
                .collect(),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.selected = 0;
        for queue in &mut self.queues {
            queue.reset();
        }
    }

    /// 0 when there is no such queue.
    pub(crate) fn max_size(&self) -> u32 {
        self.selected_queue().map_or(0, |queue| u32::from(queue.max_size))
    }

    pub(crate) fn ready(&self) -> u32 {
        self.selected_queue().map_or(0, |queue| u32::from(queue.ready))
    }

    /// The index of a queue that there is.
    pub(crate) fn index(&self, value: u32) -> Option<u16> {
        let index = u16::try_from(value).ok()?;
        (usize::from(index) < self.queues.len()).then_some(index)
    }

    /// False when the write is not allowed. The caller has checked the device status.
    pub(crate) fn write(&mut self, offset: u64, value: u32) -> bool {
        let selected = usize::try_from(self.selected).unwrap_or(usize::MAX);
        self.queues
            .get_mut(selected)
            .is_some_and(|queue| queue.write(offset, value))
    }

    /// The rings, in queue order; one that is not ready is always empty.
    pub(crate) fn rings<M: GuestMemoryBackend>(&self, mem: &M, features: u64) -> Result<Vec<Ring>, InvalidQueue> {
        let build = |(index, queue): (usize, &QueueRegisters)| {
            let built = queue
                .build(mem, features & F_EVENT_IDX != 0)
                .ok_or_else(|| queue.invalid(index))?;
            Ok(Ring::new(built)
                .with_indirect(features & F_INDIRECT_DESC != 0)
                .with_malformed_counter(Arc::clone(&queue.malformed)))
        };
        self.queues.iter().enumerate().map(build).collect()
    }

    fn selected_queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.selected).ok()?)
    }
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: u32::from(max_size),
            ready: false,
            desc: 0,
            avail: 0,
            used: 0,
            malformed: Arc::default(),
        }
    }

    fn reset(&mut self) {
        *self = Self {
            malformed: Arc::clone(&self.malformed),
            ..Self::new(self.max_size)
        };
    }

    fn write(&mut self, offset: u64, value: u32) -> bool {
        if offset == QUEUE_READY {
            self.ready = value == 1;
            return value <= 1;
        }
        if self.ready {
            return false;
        }
        match offset {
            QUEUE_SIZE => self.size = value,
            QUEUE_DESC_LOW => set_low(&mut self.desc, value),
            QUEUE_DESC_HIGH => set_high(&mut self.desc, value),
            QUEUE_DRIVER_LOW => set_low(&mut self.avail, value),
            QUEUE_DRIVER_HIGH => set_high(&mut self.avail, value),
            QUEUE_DEVICE_LOW => set_low(&mut self.used, value),
            QUEUE_DEVICE_HIGH => set_high(&mut self.used, value),
            _ => return false,
        }
        true
    }

    fn build<M: GuestMemoryBackend>(&self, mem: &M, event_idx: bool) -> Option<Queue> {
        if !self.ready {
            return Queue::new(self.max_size).ok();
        }
        let state = QueueState {
            max_size: self.max_size,
            size: u16::try_from(self.size).ok()?,
            ready: true,
            event_idx_enabled: event_idx,
            desc_table: self.desc,
            avail_ring: self.avail,
            used_ring: self.used,
            next_avail: 0,
            next_used: 0,
        };
        Queue::try_from(state).ok().filter(|_| self.is_in(mem))
    }

    /// `QueueT::is_valid` would ask the same, but writes a log line for each guest that gets it wrong.
    fn is_in<M: GuestMemoryBackend>(&self, mem: &M) -> bool {
        let size = u64::from(self.size);
        let parts = [
            (self.desc, 16 * size),
            (self.avail, 6 + 2 * size),
            (self.used, 6 + 8 * size),
        ];
        parts
            .iter()
            .all(|&(addr, len)| usize::try_from(len).is_ok_and(|len| mem.check_range(GuestAddress(addr), len)))
    }

    fn invalid(&self, index: usize) -> InvalidQueue {
        let Self {
            max_size,
            size,
            desc,
            avail,
            used,
            ..
        } = *self;
        InvalidQueue {
            index,
            size,
            max_size,
            desc,
            avail,
            used,
        }
    }
}
