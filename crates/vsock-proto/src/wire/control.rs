//! TSI control messages: datagrams between a guest's kernel and ports 1024 to 1031 (TSI specification, 5).
//!
//! The guest takes the first datagram on its control socket for the answer, unchecked. So CONNECT, GETNAME, LISTEN and
//! ACCEPT get one reply of exact length, always; the others never get one.

use super::name::{NameError, SocketName};

/// Well-known vsock ports of TSI (TSI specification, 3.1).
pub mod port {
    /// The guest's clock is set from here.
    pub const TIME_SYNC: u32 = 123;
    /// Host side of every outbound TSI stream, and of the key of whatever PROXY_CREATE makes.
    pub const RENDEZVOUS: u32 = 620;
    /// PROXY_CREATE.
    pub const CREATE: u32 = 1024;
    /// CONNECT.
    pub const CONNECT: u32 = 1025;
    /// GETNAME.
    pub const GETNAME: u32 = 1026;
    /// SENDTO_ADDR.
    pub const SENDTO_ADDR: u32 = 1027;
    /// SENDTO_DATA.
    pub const SENDTO_DATA: u32 = 1028;
    /// LISTEN.
    pub const LISTEN: u32 = 1029;
    /// ACCEPT.
    pub const ACCEPT: u32 = 1030;
    /// PROXY_RELEASE.
    pub const RELEASE: u32 = 1031;
    /// "Any port": no socket can have it.
    pub const ANY: u32 = u32::MAX;

    /// Whether TSI gives the port a meaning for datagrams to the host.
    pub fn is_control(port: u32) -> bool {
        (CREATE..=RELEASE).contains(&port)
    }

    /// Whether a message to the port is a request that gets an answer.
    pub fn is_answered(port: u32) -> bool {
        matches!(port, CONNECT | GETNAME | LISTEN | ACCEPT)
    }
}

/// Room for a socket address on the wire, whatever its length.
pub(super) const ADDR_LEN: usize = 128;

/// The longest request that is a structure (LISTEN); what follows is ignored.
pub const MAX_REQUEST_LEN: usize = 16 + ADDR_LEN;

/// The longest reply (GETNAME).
pub const GETNAME_REPLY_LEN: usize = 8 + ADDR_LEN;

/// What kind of socket a proxy stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
}

impl SocketKind {
    /// The kind of Linux's number; `None` for those that TSI does not carry.
    pub fn from_number(number: u16) -> Option<SocketKind> {
        match number {
            1 => Some(SocketKind::Stream),
            2 => Some(SocketKind::Datagram),
            _ => None,
        }
    }
}

/// A control request, checked for length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A socket came into use.
    Create {
        /// The vsock port of its data socket.
        svm_port: u32,
        /// Linux's number.
        family: u16,
        /// Linux's number.
        kind: u16,
    },
    /// `connect(2)`.
    Connect {
        /// Whose.
        svm_port: u32,
        /// Where to.
        to: Result<SocketName, NameError>,
    },
    /// `getpeername(2)`, or the address result of `accept(2)`.
    GetName {
        /// Whose: the guest's half of the key.
        svm_port: u32,
        /// The host's half.
        svm_peer_port: u32,
        /// Its own name instead of its peer's.
        own: bool,
    },
    /// Where the next datagram goes.
    SendtoAddr {
        /// Whose.
        svm_port: u32,
        /// Where to.
        to: Result<SocketName, NameError>,
    },
    /// `listen(2)`.
    Listen {
        /// Whose.
        svm_port: u32,
        /// Where the guest waits for connections on the vsock.
        vm_port: u32,
        /// As the guest gave it.
        backlog: i32,
        /// What the program bound.
        at: Result<SocketName, NameError>,
    },
    /// `accept(2)`.
    Accept {
        /// Whose.
        svm_port: u32,
        /// O_NONBLOCK is among the flags.
        nonblocking: bool,
    },
    /// `close(2)`.
    Release {
        /// The guest's half of the key.
        svm_port: u32,
        /// The host's half.
        svm_peer_port: u32,
    },
}

/// A request too short for its structure, or to a port that takes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes are no request for control port {port}")]
pub struct MalformedRequest {
    /// Where it was sent to.
    pub port: u32,
    /// Its length in bytes.
    pub len: usize,
}

const O_NONBLOCK: u32 = 0x800;

impl Request {
    /// Reads a request sent to `to_port`. [`port::SENDTO_DATA`] takes none: its payload is the program's.
    ///
    /// # Errors
    /// When it is shorter than its fixed part. A wrong address is an error inside the request, since some of these
    /// must still be answered.
    pub fn parse(to_port: u32, bytes: &[u8]) -> Result<Request, MalformedRequest> {
        parse(to_port, bytes).ok_or(MalformedRequest {
            port: to_port,
            len: bytes.len(),
        })
    }
}

fn parse(to_port: u32, bytes: &[u8]) -> Option<Request> {
    let (svm_port, rest) = take_u32(bytes)?;
    match to_port {
        port::CREATE => {
            let (both, _) = take_u32(rest)?;
            let (family, kind) = ((both & 0xffff) as u16, (both >> 16) as u16);
            Some(Request::Create { svm_port, family, kind })
        }
        port::CONNECT => Some(Request::Connect {
            svm_port,
            to: take_name(rest)?,
        }),
        port::GETNAME => {
            let (svm_peer_port, rest) = take_u32(rest)?;
            let (peer, _) = take_u32(rest)?;
            Some(Request::GetName {
                svm_port,
                svm_peer_port,
                own: peer == 0,
            })
        }
        port::SENDTO_ADDR => Some(Request::SendtoAddr {
            svm_port,
            to: take_name(rest)?,
        }),
        port::LISTEN => {
            let (vm_port, rest) = take_u32(rest)?;
            let (backlog, rest) = take_u32(rest)?;
            Some(Request::Listen {
                svm_port,
                vm_port,
                backlog: backlog.cast_signed(),
                at: take_name(rest)?,
            })
        }
        port::ACCEPT => {
            let (flags, _) = take_u32(rest)?;
            Some(Request::Accept {
                svm_port,
                nonblocking: flags & O_NONBLOCK != 0,
            })
        }
        port::RELEASE => {
            let (svm_peer_port, _) = take_u32(rest)?;
            Some(Request::Release {
                svm_port,
                svm_peer_port,
            })
        }
        _ => None,
    }
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn take_name(bytes: &[u8]) -> Option<Result<SocketName, NameError>> {
    let (len, addr) = take_u32(bytes)?;
    Some(SocketName::parse(len, addr))
}

/// An answer to a control request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Reply {
    /// To CONNECT, LISTEN, ACCEPT: 0 or a negated error number.
    Result(i32),
    /// To GETNAME: the name, or a negated error number.
    Name(Result<SocketName, i32>),
}

impl Reply {
    /// Bytes on the wire. The guest reads exactly as many: a shorter reply would leave garbage of its kernel's stack.
    pub fn wire_len(&self) -> usize {
        match self {
            Reply::Result(_) => 4,
            Reply::Name(_) => GETNAME_REPLY_LEN,
        }
    }

    /// Writes the reply to the start of `out` and returns it.
    pub fn emit<'a>(&self, out: &'a mut [u8; GETNAME_REPLY_LEN]) -> &'a [u8] {
        out.fill(0);
        let (result, addr_len) = match self {
            Reply::Result(result) => (*result, 0),
            Reply::Name(Err(result)) => (*result, 0),
            Reply::Name(Ok(name)) => {
                let mut addr = [0; ADDR_LEN];
                let len = name.emit(&mut addr);
                out[8..].copy_from_slice(&addr);
                (0, len)
            }
        };
        out[..4].copy_from_slice(&result.to_le_bytes());
        out[4..8].copy_from_slice(&addr_len.to_le_bytes());
        out.get(..self.wire_len()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED_LEN: [(u32, usize); 7] = [
        (port::CREATE, 8),
        (port::CONNECT, 8),
        (port::GETNAME, 12),
        (port::SENDTO_ADDR, 8),
        (port::LISTEN, 16),
        (port::ACCEPT, 8),
        (port::RELEASE, 8),
    ];

    /// hostile-inputs 15: parsers that checked 4 or 12 bytes and then sliced at 8 or 16.
    #[test]
    fn request_of_every_length_and_addr_len_is_parsed_or_refused() {
        for (to_port, fixed) in FIXED_LEN {
            for len in 0..=160usize {
                for addr_len in 0..=200u32 {
                    let mut bytes = vec![0u8; len];
                    for at in [4, 12] {
                        if let Some(place) = bytes.get_mut(at..at + 4) {
                            place.copy_from_slice(&addr_len.to_le_bytes());
                        }
                    }
                    assert_eq!(
                        Request::parse(to_port, &bytes).is_ok(),
                        len >= fixed,
                        "{to_port} {len} {addr_len}"
                    );
                }
            }
        }
    }

    #[test]
    fn connect_with_addr_len_beyond_the_payload_carries_the_error() {
        let mut bytes = vec![1, 0, 0, 0, 128, 0, 0, 0];
        bytes.extend([2, 0, 0, 80, 1, 2, 3, 4]);
        let request = Request::parse(port::CONNECT, &bytes).unwrap();
        assert_eq!(
            request,
            Request::Connect {
                svm_port: 1,
                to: Err(NameError::Length(128))
            }
        );
    }

    #[test]
    fn connect_of_exact_address_without_padding_is_accepted() {
        let mut bytes = vec![7, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 80, 1, 2, 3, 4];
        bytes.extend([0; 8]);
        let to = Ok(SocketName::Inet("1.2.3.4:80".parse().unwrap()));
        assert_eq!(
            Request::parse(port::CONNECT, &bytes),
            Ok(Request::Connect { svm_port: 7, to })
        );
    }

    #[test]
    fn create_with_fields_appended_is_accepted() {
        let bytes = [9, 0, 0, 0, 2, 0, 1, 0, 1, 0, 0, 0];
        assert_eq!(
            Request::parse(port::CREATE, &bytes),
            Ok(Request::Create {
                svm_port: 9,
                family: 2,
                kind: 1
            })
        );
    }

    #[test]
    fn replies_have_exactly_the_length_of_their_structure() {
        let mut out = [0xff; GETNAME_REPLY_LEN];
        assert_eq!(Reply::Result(-111).emit(&mut out), (-111i32).to_le_bytes());
        let failed = Reply::Name(Err(-22));
        assert_eq!(failed.emit(&mut out).len(), 136);
        assert_eq!(out[..8], [0xea, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert!(out[8..].iter().all(|&b| b == 0));
        let named = Reply::Name(Ok(SocketName::Inet("1.2.3.4:80".parse().unwrap())));
        assert_eq!(
            named.emit(&mut out)[..16],
            [0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 80, 1, 2, 3, 4]
        );
    }
}
