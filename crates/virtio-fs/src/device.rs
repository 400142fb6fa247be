//! [`Handler`] as a device of this workspace's transport.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_transport::{ActivateError, Activation, Interrupt, Memory, Poller, VirtioDevice, Worker};

use crate::handler::Progress;
use crate::{FileSystem, Handler, Server};

/// virtio 1.3, 5.11.1
const DEVICE_ID: u32 = 26;

/// virtio 1.3, 5.11.4: `tag` has this many bytes, padded with NUL.
const TAG_LEN: usize = 36;

/// Chains in each queue. A request takes one with indirect descriptors.
const QUEUE_SIZE: u16 = 1024;

/// More request queues than there are vCPUs in any machine of this workspace serve nobody.
const MAX_REQUEST_QUEUES: u16 = 64;

const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;

/// How often a lock that is kept by somebody else is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Settings of an [`Fs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsConfig {
    /// What the guest mounts: 1 to 36 bytes.
    pub tag: String,
    /// Request queues, 1 to 64; the driver spreads its vCPUs over them. One thread at a time serves them all.
    pub request_queues: u16,
}

impl FsConfig {
    /// One request queue.
    #[must_use]
    pub fn new(tag: impl Into<String>) -> Self {
        Self {
            tag: tag.into(),
            request_queues: 1,
        }
    }
}

/// Why there is no such device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FsConfigError {
    /// The tag does not fit, or would end early.
    #[error("virtio-fs tag {tag:?} has {} bytes; 1 to {TAG_LEN} without NUL are allowed", tag.len())]
    Tag {
        /// What was asked for.
        tag: String,
    },
    /// Too few or too many request queues.
    #[error("{queues} request queues for virtio-fs tag {tag:?}; 1 to {MAX_REQUEST_QUEUES} are allowed")]
    RequestQueues {
        /// What was asked for.
        queues: u16,
        /// Of which device.
        tag: String,
    },
}

/// A virtio-fs device.
pub struct Fs {
    config_space: [u8; TAG_LEN + 4],
    queue_sizes: Vec<u16>,
    /// Here while the device is not running.
    server: Option<Server>,
}

impl Fs {
    /// A device that serves `file_system`.
    ///
    /// # Errors
    /// When the configuration is out of range.
    pub fn new(config: FsConfig, file_system: Box<dyn FileSystem>) -> Result<Self, FsConfigError> {
        let FsConfig { tag, request_queues } = config;
        if tag.is_empty() || tag.len() > TAG_LEN || tag.contains('\0') {
            return Err(FsConfigError::Tag { tag });
        }
        if !(1..=MAX_REQUEST_QUEUES).contains(&request_queues) {
            return Err(FsConfigError::RequestQueues {
                queues: request_queues,
                tag,
            });
        }
        let mut config_space = [0; TAG_LEN + 4];
        let queues = u32::from(request_queues).to_le_bytes();
        let padding = std::iter::repeat_n(&0, TAG_LEN - tag.len());
        for (to, from) in config_space
            .iter_mut()
            .zip(tag.as_bytes().iter().chain(padding).chain(&queues))
        {
            *to = *from;
        }
        let queue_sizes = vec![QUEUE_SIZE; usize::from(request_queues) + 1];
        Ok(Self {
            config_space,
            queue_sizes,
            server: Some(Server::new(file_system)),
        })
    }
}

impl VirtioDevice for Fs {
    type Worker = FsWorker;

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.config_space.get(offset..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(there.iter().chain(std::iter::repeat(&0))) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<FsWorker, ActivateError> {
        let Activation {
            mem,
            rings,
            features,
            interrupt,
        } = activation;
        let indirect = features & VIRTIO_F_INDIRECT_DESC != 0;
        let rings = rings.into_iter().map(|ring| ring.with_indirect(indirect)).collect();
        let busy = || ActivateError::Host {
            what: "start twice",
            source: io::ErrorKind::ResourceBusy.into(),
        };
        let server = self.server.take().ok_or_else(busy)?;
        Ok(FsWorker {
            handler: Handler::new(server, rings).holding_back().leaving_tasks(),
            mem,
            interrupt,
            again: None,
            settle: None,
        })
    }

    fn reset(&mut self, worker: FsWorker) {
        self.server = Some(worker.handler.into_server());
    }
}

/// The running half of an [`Fs`].
pub struct FsWorker {
    handler: Handler,
    mem: Memory,
    interrupt: Arc<Interrupt>,
    /// When to look at the rings without a notification.
    again: Option<Instant>,
    /// When to show the driver what is held back.
    settle: Option<Instant>,
}

impl FsWorker {
    /// The handler, for its counters.
    #[must_use]
    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    fn process(&mut self) {
        self.again = None;
        let progress = self.handler.process(&*self.mem);
        self.act(progress);
    }

    /// What the handler has left for another thread.
    fn run_tasks(&mut self, poller: &mut dyn Poller) {
        while let Some(task) = self.handler.take_task() {
            if let Err(task) = poller.run_aside(task) {
                task();
                self.again = Some(Instant::now());
            }
        }
    }

    fn settle(&mut self) {
        self.settle = None;
        let progress = self.handler.settle(&*self.mem);
        self.act(progress);
    }

    fn act(&mut self, progress: Progress) {
        let Progress {
            interrupt,
            more,
            needs_reset,
            held,
        } = progress;
        if interrupt {
            self.interrupt.used_ring();
        }
        if needs_reset {
            self.interrupt.needs_reset();
        }
        // Nobody notifies for what is in the rings already, nor when a process of the host gives up a lock.
        if more {
            self.again = Some(Instant::now());
        } else if self.handler.is_waiting() {
            self.again.get_or_insert_with(|| Instant::now() + LOCK_RETRY);
        }
        if held {
            self.settle.get_or_insert_with(|| Instant::now() + Handler::HOLD);
        } else {
            self.settle = None;
        }
    }
}

impl Worker for FsWorker {
    fn notified(&mut self, poller: &mut dyn Poller) {
        self.process();
        self.run_tasks(poller);
    }

    fn notified_in_passing(&mut self, poller: &mut dyn Poller) -> bool {
        self.again = None;
        let progress = self.handler.process_in_passing(&*self.mem);
        self.act(Progress {
            more: false,
            ..progress
        });
        self.run_tasks(poller);
        !progress.more
    }

    fn next_deadline(&self) -> Option<Instant> {
        [self.again, self.settle].into_iter().flatten().min()
    }

    fn deadline_passed(&mut self, now: Instant, poller: &mut dyn Poller) {
        if self.settle.is_some_and(|at| at <= now) {
            self.settle();
        }
        if self.again.is_some_and(|at| at <= now) {
            self.process();
        }
        self.run_tasks(poller);
    }

    fn finish(&mut self, _patience: Duration) {
        self.settle();
    }
}
