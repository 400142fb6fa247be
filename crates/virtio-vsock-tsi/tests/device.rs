//! The device behind the transport's traits.
#![cfg(feature = "transport")]

mod common;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use common::{GuestStream, device_ring};
use test_guest::VsockPeer;
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use virtio_transport::{ActivateError, Activation, Disconnected, Interest, Interrupt, Poller, VirtioDevice, Worker};
use virtio_vsock_tsi::{Cid, Vsock, VsockConfig};

#[derive(Default)]
struct Registered(Vec<i32>);

impl Poller for Registered {
    fn add(&mut self, fd: BorrowedFd<'_>, _token: u32, _interest: Interest) -> io::Result<()> {
        self.0.push(fd.as_raw_fd());
        Ok(())
    }

    fn modify(&mut self, _fd: BorrowedFd<'_>, _token: u32, _interest: Interest) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.retain(|known| *known != fd.as_raw_fd());
        Ok(())
    }
}

fn activation(peer: &mut VsockPeer) -> Activation {
    Activation {
        mem: peer.guest().shared_mem(),
        rings: [&peer.rx, &peer.tx, &peer.event].map(device_ring).into(),
        features: 0,
        interrupt: Arc::new(Interrupt::new(Box::new(Disconnected))),
    }
}

fn device() -> Vsock {
    Vsock::new(VsockConfig {
        guest_cid: Cid::new(0x1234_5678).unwrap(),
        ..VsockConfig::default()
    })
    .unwrap()
}

#[test]
fn device_describes_itself_as_drivers_expect() {
    let vsock = device();
    assert_eq!(vsock.device_id(), 19);
    assert_eq!(vsock.queue_max_sizes(), [256, 256, 256]);
    let features = vsock.features();
    for (bit, offered) in [
        (0, false),
        (1, false),
        (2, false),
        (3, true),
        (28, true),
        (29, true),
        (33, false),
        (35, false),
    ] {
        assert_eq!(features >> bit & 1 == 1, offered, "bit {bit}");
    }
}

#[test]
fn config_space_is_the_cid_and_zeros_beyond_at_any_offset_and_length() {
    let vsock = device();
    let whole = [0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0];
    for offset in (0..20u64).chain([0xeff, u64::MAX - 3, u64::MAX]) {
        for len in [1usize, 2, 4, 8, 16] {
            let mut part = vec![0xff; len];
            vsock.read_config(offset, &mut part);
            let expected: Vec<u8> = (0..len)
                .map(|at| usize::try_from(offset).unwrap().checked_add(at))
                .map(|at| at.and_then(|at| whole.get(at)).copied().unwrap_or(0))
                .collect();
            assert_eq!(part, expected, "{len} bytes at {offset}");
        }
    }
}

#[test]
fn activation_without_a_data_queue_is_refused_and_can_be_tried_again() {
    let mut peer = VsockPeer::new();
    let mut vsock = device();
    for missing in [0u16, 1] {
        let mut without = activation(&mut peer);
        without.rings[usize::from(missing)] = Ring::new(Queue::new(256).unwrap());
        let Err(ActivateError::QueueMissing(queue)) = vsock.activate(without) else {
            panic!("queue {missing}")
        };
        assert_eq!(queue, missing);
    }
    let mut without_events = activation(&mut peer);
    without_events.rings[2] = Ring::new(Queue::new(256).unwrap());
    assert!(vsock.activate(without_events).is_ok());
}

#[test]
fn worker_answers_and_interrupts_once_for_a_batch_and_can_be_activated_again() {
    let mut vsock = device();
    for _ in 0..3 {
        let mut peer = VsockPeer::new();
        peer.post_rx(8);
        let activation = activation(&mut peer);
        let interrupt = Arc::clone(&activation.interrupt);
        let mut worker = vsock.activate(activation).unwrap();
        let mut poller = Registered::default();
        worker.start(&mut poller).unwrap();
        for port in 1..=3 {
            let mut packet = GuestStream::connecting(port, 9).packet(1);
            packet.src_cid = 0x1234_5678;
            peer.send(&packet);
        }
        worker.notified(&mut poller);
        worker.flush(&mut poller);
        assert_eq!(interrupt.pending(), 1);
        assert_eq!(worker.next_deadline(), None);
        peer.poll();
        assert_eq!(peer.inbox.len(), 3);
        vsock.reset(worker);
    }
    assert_eq!(vsock.stats().resets_sent.get(), 9);
}

#[test]
fn broken_queue_asks_for_a_reset_and_moves_nothing_until_then() {
    let mut vsock = device();
    let mut peer = VsockPeer::new();
    peer.post_rx(8);
    let activation = activation(&mut peer);
    let interrupt = Arc::clone(&activation.interrupt);
    let mut worker = vsock.activate(activation).unwrap();
    let mem = peer.guest().shared_mem();
    peer.tx.set_avail_idx(&mem, 999);
    let mut poller = Registered::default();
    worker.flush(&mut poller);
    assert!(interrupt.is_reset_needed());
    worker.flush(&mut poller);
    assert_eq!(worker.next_deadline(), None, "a broken device does not spin");
    vsock.reset(worker);
}
