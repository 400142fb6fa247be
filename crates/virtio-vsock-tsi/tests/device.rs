//! The device behind the transport's traits.
#![cfg(feature = "transport")]

mod common;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{GuestStream, Vm, connect_body, create_body, device_ring, inet_config, sockaddr};
use rustix::event::{Timespec, epoll};
use test_guest::{VsockPacket, VsockPeer};
use tracing::{Event, Metadata, Subscriber, span};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use virtio_transport::{
    ActivateError, Activation, Disconnected, Interest, Interrupt, Poller, Readiness, VirtioDevice, Worker,
};
use virtio_vsock_tsi::{Cid, Route, Vsock, VsockConfig, VsockWorker};

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

/// epoll, as a monitor has it.
struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> Epoll {
        Epoll(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap())
    }

    fn wait(&self, timeout: Duration) -> Vec<(u32, Readiness)> {
        let mut events = Vec::with_capacity(32);
        let timeout = Timespec::try_from(timeout).unwrap();
        let _ = epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), Some(&timeout));
        let decode = |event: &epoll::Event| {
            let flags = event.flags;
            let readiness = Readiness {
                readable: flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
                writable: flags.contains(epoll::EventFlags::OUT),
                hangup: flags.contains(epoll::EventFlags::HUP),
                error: flags.contains(epoll::EventFlags::ERR),
            };
            (u32::try_from(event.data.u64()).unwrap(), readiness)
        };
        events.iter().map(decode).collect()
    }

    /// What a monitor does whenever it wakes.
    fn round(&mut self, worker: &mut VsockWorker) {
        for (token, readiness) in self.wait(Duration::from_millis(5)) {
            worker.ready(token, readiness, self);
        }
        let now = Instant::now();
        if worker.next_deadline().is_some_and(|at| at <= now) {
            worker.deadline_passed(now, self);
        }
        worker.flush(self);
    }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN | epoll::EventFlags::RDHUP, interest.readable);
    flags.set(epoll::EventFlags::OUT, interest.writable);
    flags
}

impl Poller for Epoll {
    fn add(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token.into());
        Ok(epoll::add(&self.0, fd, token, flags(interest))?)
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token.into());
        Ok(epoll::modify(&self.0, fd, token, flags(interest))?)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
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
        assert!(
            worker.next_deadline().is_none_or(|at| at > Instant::now()),
            "all is done"
        );
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

/// A stream that the guest has opened to `listener`, with credit for the host's data; the host's end.
fn open_stream(worker: &mut VsockWorker, peer: &mut VsockPeer, epoll: &mut Epoll, listener: &TcpListener) -> TcpStream {
    let port = 50_000;
    let to = sockaddr(listener.local_addr().unwrap());
    for (control, payload) in [(1024, create_body(port, 2, 1)), (1025, connect_body(port, &to))] {
        peer.send(&VsockPacket {
            src_cid: 3,
            dst_cid: 2,
            src_port: 60_000,
            dst_port: control,
            kind: 3,
            op: 5,
            payload,
            ..VsockPacket::default()
        });
    }
    worker.flush(epoll);
    let host = listener.accept().unwrap().0;
    epoll.round(worker);
    peer.send(&GuestStream::connecting(port, 620).packet(1));
    epoll.round(worker);
    peer.poll();
    let accepted = |packet: &VsockPacket| (packet.kind, packet.op, packet.dst_port) == (1, 2, port);
    assert!(peer.inbox.iter().any(accepted), "{:?}", peer.inbox);
    host
}

/// Sockets that nobody looks at any more were reported for ever: the worker had no rest, and what it noted of each
/// report was never thrown away.
#[test]
fn broken_queue_with_an_open_stream_leaves_nothing_to_report_until_the_reset() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["listen", "multiplex"].map(|name| dir.path().join(name));
    let [listen, multiplex] = paths.clone();
    let mut vsock = Vsock::new(VsockConfig {
        routes: vec![
            Route::Listen { port: 80, path: listen },
            Route::Multiplex { path: multiplex },
        ],
        ..inet_config()
    })
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = VsockPeer::new();
    peer.post_rx(64);
    let mut worker = vsock.activate(activation(&mut peer)).unwrap();
    let mut epoll = Epoll::new();
    worker.start(&mut epoll).unwrap();
    let mut host = open_stream(&mut worker, &mut peer, &mut epoll, &listener);
    let silent = UnixStream::connect(&paths[1]).unwrap();
    epoll.round(&mut worker);

    host.write_all(b"hello").unwrap();
    let reported = epoll.wait(Duration::from_secs(20));
    assert!(!reported.is_empty());
    let mem = peer.guest().shared_mem();
    peer.tx.set_avail_idx(&mem, 9999);
    worker.flush(&mut epoll);
    let _late = UnixStream::connect(&paths[0]).unwrap();
    for (token, readiness) in reported {
        worker.ready(token, readiness, &mut epoll);
    }
    worker.deadline_passed(Instant::now(), &mut epoll);
    worker.flush(&mut epoll);
    assert_eq!(worker.next_deadline(), None);
    assert_eq!(epoll.wait(Duration::from_millis(20)), []);
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(host.read(&mut [0]), Ok(0) | Err(_)), "the host sees the end");
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!((&silent).read(&mut [0]).unwrap(), 0);

    vsock.reset(worker);
    let mut peer = VsockPeer::new();
    peer.post_rx(64);
    let mut worker = vsock.activate(activation(&mut peer)).unwrap();
    worker.start(&mut epoll).unwrap();
    epoll.round(&mut worker);
    peer.poll();
    let requests = peer.inbox.iter().map(|packet| (packet.op, packet.dst_port));
    assert_eq!(
        requests.collect::<Vec<_>>(),
        [(1, 80)],
        "who came meanwhile is served now"
    );
}

/// Counts what is said.
struct Said(Arc<AtomicUsize>);

impl Subscriber for Said {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A guest that resets the device and breaks it again filled the host's log.
#[test]
fn queue_broken_again_after_each_reset_is_said_once() {
    let said = Arc::new(AtomicUsize::new(0));
    let mut vsock = device();
    tracing::subscriber::with_default(Said(Arc::clone(&said)), || {
        for _ in 0..10 {
            let mut peer = VsockPeer::new();
            let mut worker = vsock.activate(activation(&mut peer)).unwrap();
            let mem = peer.guest().shared_mem();
            peer.tx.set_avail_idx(&mem, 999);
            worker.flush(&mut Registered::default());
            vsock.reset(worker);
        }
    });
    assert_eq!(said.load(Ordering::Relaxed), 1);
}

/// Each connection was a line in the log while the event loop was full.
#[test]
fn event_loop_that_takes_no_more_sockets_is_said_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = Arc::new(AtomicUsize::new(0));
    let mut vm = Vm::new(inet_config());
    vm.watcher.refuse = true;
    tracing::subscriber::with_default(Said(Arc::clone(&said)), || {
        for _ in 0..10 {
            let port = vm.fresh_port();
            vm.create(port, 2, 1);
            vm.connect(port, listener.local_addr().unwrap());
            vm.settle();
            vm.handler.reset();
        }
    });
    assert_eq!(said.load(Ordering::Relaxed), 1);
}
