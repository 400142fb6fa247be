//! A handler whose streams go to sockets that a test makes.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use test_guest::VsockPeer;
use virtio_vsock_tsi::vsock_proto::wire::{Family, SocketName};
use virtio_vsock_tsi::vsock_proto::{Config, Errno, Muxer};
use virtio_vsock_tsi::{Backend, Cid, Connection, Handler, HostStream, Listener, NoLoop, Peer, Queues, Readiness};

use super::{GuestStream, device_ring};

/// The socket for a stream, and the one that the test gets.
pub type Pair = (OwnedFd, OwnedFd);

/// Connects each stream to the first of a pair, and hands out the second.
pub struct Pairs {
    make: fn() -> Pair,
    opened: Sender<OwnedFd>,
}

impl Backend for Pairs {
    fn connect(&mut self, _to: &SocketName) -> Result<Connection, Errno> {
        Err(Errno::ECONNREFUSED)
    }

    fn connect_route(&mut self, _port: u32) -> Result<Connection, Errno> {
        let (ours, hosts) = (self.make)();
        self.opened.send(hosts).unwrap();
        Ok(Connection {
            stream: HostStream::Socket(ours),
            established: true,
            peer: None,
        })
    }

    fn listen(&mut self, _at: &SocketName, _backlog: u16) -> Result<Listener, Errno> {
        Err(Errno::EADDRINUSE)
    }

    fn datagram(&mut self, _family: Family) -> Result<OwnedFd, Errno> {
        Err(Errno::EMFILE)
    }

    fn datagram_peer(&mut self, _name: &SocketName) -> Result<Peer, Errno> {
        Err(Errno::EACCES)
    }
}

pub struct World {
    pub peer: VsockPeer,
    pub queues: Queues,
    pub handler: Handler<Pairs>,
    opened: Receiver<OwnedFd>,
}

/// A stream as the guest has it, and the host's end.
pub struct Open {
    pub guest: GuestStream,
    pub host: OwnedFd,
}

impl World {
    pub fn new(make: fn() -> Pair) -> Self {
        let mut config = Config::new(Cid::DEFAULT_GUEST);
        config.stream_routes.insert(52);
        let (sender, receiver) = channel();
        let mut peer = VsockPeer::new();
        peer.post_rx(64);
        Self {
            queues: Queues {
                rx: device_ring(&peer.rx),
                tx: device_ring(&peer.tx),
                event: device_ring(&peer.event),
            },
            peer,
            handler: Handler::new(Muxer::new(config), Pairs { make, opened: sender }),
            opened: receiver,
        }
    }

    pub fn open(&mut self, port: u32) -> Open {
        let guest = GuestStream::connecting(port, 52);
        self.peer.send(&guest.packet(1));
        self.serve();
        Open {
            guest,
            host: self.opened.recv().unwrap(),
        }
    }

    pub fn serve(&mut self) {
        let mem = self.peer.guest().shared_mem();
        self.handler
            .serve(Duration::ZERO, &mut self.queues, &*mem, &mut NoLoop)
            .unwrap();
        self.peer.poll();
    }

    /// The event loop says that the host takes more.
    pub fn writable(&mut self, token: u32) {
        let readiness = Readiness {
            writable: true,
            ..Readiness::default()
        };
        self.handler.socket_ready(Duration::ZERO, token, readiness, &mut NoLoop);
        self.serve();
    }

    pub fn send(&mut self, stream: &mut Open, data: &[u8]) {
        let packet = stream.guest.data_packet(data);
        self.peer.send(&packet);
    }
}
