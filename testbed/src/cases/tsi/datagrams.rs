//! The host's side of the datagram checks: each datagram is a line of text that asks for something.
//!
//! | datagram | what the host does then |
//! |---|---|
//! | `reply COUNT` | answers with so many bytes |
//! | `stranger` | another socket answers, which the guest has not asked |
//! | `note KEY TEXT` | notes TEXT as KEY |
//! | anything else | sends it back |

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{self as unix, UnixDatagram};
use std::sync::Arc;
use std::thread;

use super::peer::Peer;
use crate::blob;

const LONGEST: usize = 1 << 16;

/// A socket that can answer.
trait Socket: Send + 'static {
    type Address;
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Self::Address)>;
    fn answer(&self, bytes: &[u8], to: &Self::Address) -> io::Result<()>;
    fn answer_as_a_stranger(&self, to: &Self::Address) -> io::Result<()>;
}

impl Socket for UdpSocket {
    type Address = SocketAddr;

    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer)
    }

    fn answer(&self, bytes: &[u8], to: &SocketAddr) -> io::Result<()> {
        self.send_to(bytes, to).map(drop)
    }

    fn answer_as_a_stranger(&self, to: &SocketAddr) -> io::Result<()> {
        let stranger = UdpSocket::bind(SocketAddr::new(self.local_addr()?.ip(), 0))?;
        stranger.send_to(b"from a stranger", to).map(drop)
    }
}

impl Socket for UnixDatagram {
    type Address = unix::SocketAddr;

    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, unix::SocketAddr)> {
        self.recv_from(buffer)
    }

    fn answer(&self, bytes: &[u8], to: &unix::SocketAddr) -> io::Result<()> {
        self.send_to_addr(bytes, to).map(drop)
    }

    fn answer_as_a_stranger(&self, to: &unix::SocketAddr) -> io::Result<()> {
        UnixDatagram::unbound()?.send_to_addr(b"from a stranger", to).map(drop)
    }
}

impl Peer {
    /// Serves a UDP socket for as long as the process lives.
    pub(super) fn serve_udp(self: &Arc<Self>, socket: UdpSocket) {
        self.serve_datagrams(socket);
    }

    /// Serves a UNIX datagram socket for as long as the process lives.
    pub(super) fn serve_unix_datagrams(self: &Arc<Self>, socket: UnixDatagram) {
        self.serve_datagrams(socket);
    }

    fn serve_datagrams<S: Socket>(self: &Arc<Self>, socket: S) {
        let peer = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = vec![0; LONGEST];
            while let Ok((len, from)) = socket.receive(&mut buffer) {
                if let Err(error) = peer.react(&socket, &buffer[..len], &from) {
                    println!("host, to a datagram of {len} bytes: {error}");
                }
            }
        });
    }

    fn react<S: Socket>(&self, socket: &S, datagram: &[u8], from: &S::Address) -> io::Result<()> {
        let text = String::from_utf8_lossy(datagram);
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        match words.as_slice() {
            ["reply", count] => socket.answer(&blob::bytes(count.parse().unwrap_or_default()), from),
            ["stranger"] => socket.answer_as_a_stranger(from),
            ["note", key, value] => {
                self.note(key, value);
                Ok(())
            }
            _ => socket.answer(datagram, from),
        }
    }
}
