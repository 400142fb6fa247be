//! Socket names as a guest writes them: a Linux `sockaddr` in up to 128 bytes (TSI specification, 6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::control::ADDR_LEN;
use crate::errno::Errno;

const INET_LEN: usize = 16;
const INET6_LEN: usize = 28;
/// `sockaddr_un` on Linux: family and 108 bytes of path.
const UNIX_MAX_LEN: usize = 110;
/// A path needs its NUL on the host.
const UNIX_PATH_MAX: usize = 107;

/// An address family, with Linux's number on every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Family {
    /// AF_UNIX.
    Unix,
    /// AF_INET.
    Inet,
    /// AF_INET6.
    Inet6,
}

impl Family {
    /// The family of a number; `None` for those that TSI does not carry.
    pub fn from_number(number: u16) -> Option<Family> {
        match number {
            1 => Some(Family::Unix),
            2 => Some(Family::Inet),
            10 => Some(Family::Inet6),
            _ => None,
        }
    }

    /// Linux's number.
    pub fn number(self) -> u16 {
        match self {
            Family::Unix => 1,
            Family::Inet => 2,
            Family::Inet6 => 10,
        }
    }
}

/// The name of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SocketName {
    /// AF_INET or AF_INET6.
    Inet(SocketAddr),
    /// AF_UNIX.
    Unix(UnixName),
}

/// The name of an AF_UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum UnixName {
    /// None.
    Unnamed,
    /// In the abstract name space; any bytes.
    Abstract(Box<[u8]>),
    /// A path, 1 to 107 bytes without NUL, as the guest wrote it.
    Path(Box<[u8]>),
}

/// Why bytes are no socket name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The length field does not fit the message or the structure.
    #[error("address length {0} does not fit")]
    Length(u32),
    /// A family that TSI does not carry.
    #[error("address family {0} is not carried")]
    Family(u16),
    /// The length is not that of the family's structure.
    #[error("address length {len} is wrong for family {family}")]
    LengthForFamily {
        /// The family.
        family: u16,
        /// The length given.
        len: u32,
    },
    /// A path too long for the host.
    #[error("the path does not fit a sockaddr_un with its NUL")]
    PathTooLong,
}

impl SocketName {
    /// Reads the name in the first `len` bytes of `bytes`; what follows them is never looked at (it is uninitialised
    /// memory of the guest's kernel).
    ///
    /// # Errors
    /// When length, family or form are wrong.
    pub fn parse(len: u32, bytes: &[u8]) -> Result<SocketName, NameError> {
        let used = usize::try_from(len)
            .ok()
            .filter(|&n| n <= ADDR_LEN)
            .and_then(|n| bytes.get(..n));
        let (family, rest) = used
            .and_then(|b| b.split_first_chunk::<2>())
            .ok_or(NameError::Length(len))?;
        let family = u16::from_le_bytes(*family);
        let wrong_length = NameError::LengthForFamily { family, len };
        match Family::from_number(family).ok_or(NameError::Family(family))? {
            Family::Inet => parse_inet(rest).ok_or(wrong_length),
            Family::Inet6 => parse_inet6(rest).ok_or(wrong_length),
            Family::Unix if rest.len() + 2 > UNIX_MAX_LEN => Err(wrong_length),
            Family::Unix => parse_unix(rest).map(SocketName::Unix),
        }
    }

    /// Writes the name and returns its length; the rest of `out` becomes 0.
    pub fn emit(&self, out: &mut [u8; ADDR_LEN]) -> u32 {
        out.fill(0);
        let (family, rest) = out.split_at_mut(2);
        family.copy_from_slice(&self.family().number().to_le_bytes());
        let len = match self {
            SocketName::Inet(SocketAddr::V4(addr)) => emit_inet(addr, rest),
            SocketName::Inet(SocketAddr::V6(addr)) => emit_inet6(addr, rest),
            SocketName::Unix(name) => emit_unix(name, rest),
        };
        u32::try_from(len).unwrap_or(0)
    }

    /// The name as it comes out on the other side of the wire; `None` if it cannot be told there.
    pub(crate) fn canonical(&self) -> Option<SocketName> {
        let mut bytes = [0; ADDR_LEN];
        SocketName::parse(self.emit(&mut bytes), &bytes).ok()
    }

    /// The family.
    pub fn family(&self) -> Family {
        match self {
            SocketName::Inet(SocketAddr::V4(_)) => Family::Inet,
            SocketName::Inet(SocketAddr::V6(_)) => Family::Inet6,
            SocketName::Unix(_) => Family::Unix,
        }
    }

    /// The internet address, if it is one.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            SocketName::Inet(addr) => Some(*addr),
            SocketName::Unix(_) => None,
        }
    }

    /// The same name in another family of the internet, as far as it can be said there: an IPv4 address in IPv6 is
    /// v4-mapped, an IPv6 one that is not becomes 0.0.0.0 in IPv4.
    pub fn in_family(&self, family: Family) -> SocketName {
        match (self, family) {
            (SocketName::Inet(SocketAddr::V4(a)), Family::Inet6) => {
                SocketName::Inet(SocketAddr::new(IpAddr::V6(a.ip().to_ipv6_mapped()), a.port()))
            }
            (SocketName::Inet(SocketAddr::V6(a)), Family::Inet) => {
                let ip = a.ip().to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
                SocketName::Inet(SocketAddr::new(IpAddr::V4(ip), a.port()))
            }
            _ => self.clone(),
        }
    }

    /// The same as a socket of `family` can be told; EAFNOSUPPORT if it cannot.
    pub(crate) fn said_in(&self, family: Family) -> Result<SocketName, Errno> {
        let sayable = match (self, family) {
            (SocketName::Inet(addr), Family::Inet) => addr.ip().to_canonical().is_ipv4(),
            (SocketName::Inet(_), Family::Inet6) => true,
            _ => self.family() == family,
        };
        sayable.then(|| self.in_family(family)).ok_or(Errno::EAFNOSUPPORT)
    }
}

fn parse_inet(rest: &[u8]) -> Option<SocketName> {
    let rest: &[u8; INET_LEN - 2] = rest.try_into().ok()?;
    let [p0, p1, a, b, c, d, ..] = *rest;
    let port = u16::from_be_bytes([p0, p1]);
    Some(SocketName::Inet(
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port).into(),
    ))
}

/// Flow label and scope are forced to 0: the first has no meaning here, the second is an interface of the guest's.
fn parse_inet6(rest: &[u8]) -> Option<SocketName> {
    let rest: &[u8; INET6_LEN - 2] = rest.try_into().ok()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (_flowinfo, rest) = rest.split_first_chunk::<4>()?;
    let (ip, _scope) = rest.split_first_chunk::<16>()?;
    Some(SocketName::Inet(
        SocketAddrV6::new(Ipv6Addr::from(*ip), u16::from_be_bytes(*port), 0, 0).into(),
    ))
}

fn parse_unix(path: &[u8]) -> Result<UnixName, NameError> {
    match path {
        [] => Ok(UnixName::Unnamed),
        [0, name @ ..] => Ok(UnixName::Abstract(name.into())),
        _ => {
            let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
            if path.len() > UNIX_PATH_MAX {
                Err(NameError::PathTooLong)
            } else {
                Ok(UnixName::Path(path.into()))
            }
        }
    }
}

fn emit_inet(addr: &SocketAddrV4, out: &mut [u8]) -> usize {
    put(out, 0, &addr.port().to_be_bytes());
    put(out, 2, &addr.ip().octets());
    INET_LEN
}

fn emit_inet6(addr: &SocketAddrV6, out: &mut [u8]) -> usize {
    put(out, 0, &addr.port().to_be_bytes());
    put(out, 6, &addr.ip().octets());
    INET6_LEN
}

/// Never longer than a `sockaddr_un`: a length that the guest's kernel does not expect here can panic it.
fn emit_unix(name: &UnixName, out: &mut [u8]) -> usize {
    match name {
        UnixName::Unnamed => 2,
        UnixName::Abstract(name) => {
            let name = name.get(..UNIX_PATH_MAX).unwrap_or(name);
            put(out, 1, name);
            3 + name.len()
        }
        UnixName::Path(path) => {
            let path = path.get(..UNIX_PATH_MAX).unwrap_or(path);
            put(out, 0, path);
            2 + path.len() + 1
        }
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<SocketName, NameError> {
        SocketName::parse(u32::try_from(bytes.len()).unwrap(), bytes)
    }

    #[test]
    fn inet_name_reads_port_and_address_in_network_order() {
        let name = parse(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]).unwrap();
        assert_eq!(name, SocketName::Inet("127.0.0.1:8080".parse().unwrap()));
    }

    #[test]
    fn inet6_name_drops_flow_and_scope() {
        let mut bytes = vec![10, 0, 0, 80, 1, 2, 3, 4];
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend([7, 0, 0, 0]);
        assert_eq!(parse(&bytes).unwrap(), SocketName::Inet("[::1]:80".parse().unwrap()));
    }

    #[test]
    fn name_with_any_other_length_for_its_family_is_refused() {
        for len in 0..=130usize {
            for family in [2u8, 10] {
                let mut bytes = vec![0; len];
                if let Some(first) = bytes.first_mut() {
                    *first = family;
                }
                let fits = len == if family == 2 { INET_LEN } else { INET6_LEN };
                assert_eq!(parse(&bytes).is_ok(), fits, "family {family}, {len} bytes");
            }
        }
    }

    #[test]
    fn name_length_beyond_the_bytes_is_refused() {
        assert_eq!(SocketName::parse(16, &[2; 15]), Err(NameError::Length(16)));
        assert_eq!(SocketName::parse(u32::MAX, &[2; 128]), Err(NameError::Length(u32::MAX)));
    }

    #[test]
    fn unix_names_of_each_form_are_told_apart() {
        assert_eq!(parse(&[1, 0]), Ok(SocketName::Unix(UnixName::Unnamed)));
        assert_eq!(
            parse(b"\x01\0\0ab"),
            Ok(SocketName::Unix(UnixName::Abstract((*b"ab").into())))
        );
        assert_eq!(
            parse(b"\x01\0/a\0zz"),
            Ok(SocketName::Unix(UnixName::Path((*b"/a").into())))
        );
        let mut long = vec![1, 0];
        long.extend([b'x'; 108]);
        assert_eq!(parse(&long), Err(NameError::PathTooLong));
        long.push(b'x');
        assert_eq!(parse(&long), Err(NameError::LengthForFamily { family: 1, len: 111 }));
    }

    proptest! {
        #[test]
        fn name_parsed_from_anything_survives_emit_and_parse(bytes in proptest::collection::vec(any::<u8>(), 0..=128), family in 0u8..12) {
            let mut bytes = bytes;
            if bytes.len() >= 2 { bytes[0] = family; bytes[1] = 0; }
            if let Ok(name) = parse(&bytes) {
                let mut out = [0xff; ADDR_LEN];
                let len = name.emit(&mut out);
                prop_assert!((2..=110).contains(&len));
                prop_assert_eq!(SocketName::parse(len, &out), Ok(name));
            }
        }
    }
}
