//! What a muxer is set up with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::ids::Cid;
use crate::policy::Policy;
use crate::wire::port;

/// Which of the guest's socket families become the host's (TSI specification, 1.1). With none of them the device is a
/// plain vsock device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TsiFlags {
    /// AF_INET and AF_INET6.
    pub inet: bool,
    /// AF_UNIX.
    pub unix: bool,
}

impl TsiFlags {
    /// Whether there is no TSI at all.
    pub fn is_empty(self) -> bool {
        !self.inet && !self.unix
    }
}

/// Set-up of a [`Muxer`](crate::Muxer).
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The guest's address.
    pub guest_cid: Cid,
    /// What TSI carries.
    pub tsi: TsiFlags,
    /// Where the guest may connect to.
    pub policy: Policy,
    /// What of the guest the host may connect to.
    pub publish: Publish,
    /// Ports of plain streams that the guest may open.
    pub stream_routes: BTreeSet<u32>,
    /// The guest may open plain streams to any port that has no other meaning; the back-end decides about each.
    pub any_stream_route: bool,
    /// Ports of plain datagrams that the guest may send to.
    pub datagram_routes: BTreeSet<u32>,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// A plain device with no route: TSI, routes and published ports are to be added.
    pub fn new(guest_cid: Cid) -> Config {
        Config {
            guest_cid,
            tsi: TsiFlags::default(),
            policy: Policy::default(),
            publish: Publish::default(),
            stream_routes: BTreeSet::new(),
            any_stream_route: false,
            datagram_routes: BTreeSet::new(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Whether the guest may open a plain stream to a port.
    pub(crate) fn has_stream_route(&self, to: u32) -> bool {
        let plain = !matches!(to, 0 | port::RENDEZVOUS | port::ANY);
        self.stream_routes.contains(&to) || (self.any_stream_route && plain)
    }
}

/// Listeners of the guest that become the host's. What is not here stays in the guest: `listen(2)` succeeds there and
/// nothing appears on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// TCP: the guest's port, and where the host listens for it.
    pub ports: BTreeMap<u16, SocketAddr>,
    /// AF_UNIX: paths in the guest, each with all that is below it.
    pub unix: Vec<Vec<u8>>,
}

impl Publish {
    /// Whether the host shows a guest's AF_UNIX listener. A path with `..` in it is never shown.
    pub(crate) fn shows_unix(&self, path: &[u8]) -> bool {
        let climbs = path.split(|&byte| byte == b'/').any(|part| part == b"..");
        let below = |root: &Vec<u8>| {
            let root = root.strip_suffix(b"/").unwrap_or(root);
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        !climbs && self.unix.iter().any(below)
    }
}

/// Bounds on what a guest can make the host hold, and times after which it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Proxies of all kinds; at most [`ProxyId::SLOTS`](crate::ProxyId::SLOTS).
    pub proxies: usize,
    /// Listening TSI sockets.
    pub listeners: usize,
    /// Connects of the guest in a second, and at once.
    pub connects_per_second: u32,
    /// Bytes of all streams that the host has not taken. Windows are handed out so that this holds.
    pub buffered_bytes: u64,
    /// The largest receive window of one stream, in bytes. Linux uses no more than 256 KiB.
    pub window_bytes: u32,
    /// The largest accept queue of one listener.
    pub backlog: usize,
    /// Control requests that wait for an answer. One beyond is never answered, and who asked sleeps: no fewer than
    /// [`proxies`](Self::proxies), each of which may have one.
    pub requests: usize,
    /// How long a guest may take to open its side after the host has connected.
    pub request_timeout: Duration,
    /// How long a guest may take to accept a connection of the host.
    pub response_timeout: Duration,
    /// How long the host may take none of the last bytes of a stream that the guest closed.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            proxies: 1024,
            listeners: 64,
            connects_per_second: 10_000,
            buffered_bytes: 64 << 20,
            window_bytes: 256 << 10,
            backlog: 128,
            requests: 4096,
            request_timeout: Duration::from_secs(60),
            response_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_paths_below_a_published_one_are_shown_and_no_others() {
        let publish = Publish {
            unix: vec![b"/run/app/".to_vec(), b"/tmp/x.sock".to_vec()],
            ..Publish::default()
        };
        for (path, shown) in [
            ("/run/app/a.sock", true),
            ("/run/app/deep/a.sock", true),
            ("/run/apple", false),
            ("/run/app/../x", false),
            ("/tmp/x.sock", true),
            ("/tmp/x.sock2", false),
            ("", false),
        ] {
            assert_eq!(publish.shows_unix(path.as_bytes()), shown, "{path}");
        }
        assert!(!Publish::default().shows_unix(b"/run/app/a.sock"));
    }
}
