//! A guest that echoes what it reads on its console, played by hand on both sides: no KVM, no transport.
//!
//! `echo hello | cargo run --example echo` prints `hello`, which has been through two virtqueues.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use test_guest::{Buffer, Guest, SplitRing};
use virtio_console::{Direction, Handler, Output, Port, PortKind, Ports, TerminalSize, Watch};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use vm_memory::GuestAddress;

fn main() -> anyhow::Result<()> {
    let console = Port {
        name: String::new(),
        kind: PortKind::Terminal {
            size: TerminalSize::default(),
        },
        input: Some(io::stdin().as_fd().try_clone_to_owned()?),
        output: Some(Output::Fd(io::stdout().as_fd().try_clone_to_owned()?)),
    };
    let ports = Ports::new(vec![console])?;
    let mut guest = Guest::new(1 << 20);
    let mut driver: Vec<SplitRing> = ports.queue_sizes().iter().map(|size| guest.ring(*size)).collect();
    let rings = driver.iter().map(device_ring).collect::<Result<_, _>>()?;
    // No MULTIPORT: the oldest form of the device, with one port that is always open.
    let mut handler = Handler::new(ports, rings, 0);

    let room = guest.writable(256);
    let mut waiting = Waiting(false);
    loop {
        driver[0].add(guest.mem(), &[room]);
        handler.notified(guest.mem(), &mut waiting);
        if waiting.0 {
            let stdin = io::stdin();
            poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None)?;
            handler.ready(0, guest.mem(), &mut waiting);
        }
        handler.flush(guest.mem());
        let Some(read) = driver[0].poll_used(guest.mem()) else {
            return Ok(());
        };
        driver[1].add(guest.mem(), &[Buffer::readable(room.addr, read.len)]);
        handler.notified(guest.mem(), &mut waiting);
        handler.flush(guest.mem());
        driver[1].poll_all_used(guest.mem());
    }
}

/// Whether the console waits for its input.
struct Waiting(bool);

impl Watch for Waiting {
    fn watch(&mut self, _: BorrowedFd<'_>, _: u32, direction: Direction) -> io::Result<()> {
        self.0 |= direction == Direction::Readable;
        Ok(())
    }

    fn unwatch(&mut self, _: BorrowedFd<'_>) {
        self.0 = false;
    }
}

fn device_ring(ring: &SplitRing) -> Result<Ring, virtio_queue::Error> {
    let mut queue = Queue::new(ring.size())?;
    queue.try_set_desc_table_address(GuestAddress(ring.desc_table()))?;
    queue.try_set_avail_ring_address(GuestAddress(ring.avail_ring()))?;
    queue.try_set_used_ring_address(GuestAddress(ring.used_ring()))?;
    queue.set_ready(true);
    Ok(Ring::new(queue))
}
