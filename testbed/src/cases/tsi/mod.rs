//! TSI and vsock with real programs on both sides: what the TSI specification wants in its sections 18 and 21.
//!
//! Each case here is one guest that runs one script of `guest/`; each check of it gets a line of its own. The host's side
//! is [`peer`], which does what a check asks it for.

mod datagrams;
mod dial;
mod peer;
mod script;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use self::peer::Peer;
use super::{Case, LONG, cases};
use crate::bed::Bed;

/// Broadcast and multicast are denied by default; allowed, the host itself has no route for TCP to them.
const UNROUTABLE: [&str; 4] = ["--tsi-allow", "255.255.255.255", "--tsi-allow", "224.0.0.0/4"];
/// Lets a guest reach this host's loopback addresses, where the peer is.
const REACH_LOOPBACK: [&str; 4] = ["--tsi-allow", "127.0.0.0/8", "--tsi-allow", "::1"];
/// An address of the host that no network has (RFC 5737) and to which the guest has no route of its own.
const OUTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

/// For thousands of connections, each of which takes dozens of exits to an emulated host.
const VERY_LONG: Duration = Duration::from_secs(600);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![VERY_LONG; tsi_crowds_of_the_guest];
    // The longest first, so that it does not run alone at the end.
    cases.extend(cases![LONG;
        tsi_tcp_of_the_guest,
        tsi_listeners_of_the_guest,
        tsi_datagrams_of_the_guest,
        tsi_unix_sockets_of_the_guest,
        tsi_policy_without_rules,
        tsi_absent_vsock_routes_of_the_guest,
    ]);
    cases
}

/// A peer at one port of both loopback addresses, for TCP and for UDP, and the port.
fn inet_peer() -> Result<(Arc<Peer>, u16)> {
    let peer = Arc::new(Peer::default());
    let (port, listeners, sockets) = (0..100)
        .find_map(|_| both_families().ok())
        .context("no port is free on both loopback addresses")?;
    listeners.into_iter().for_each(|listener| peer.serve_tcp(listener));
    sockets.into_iter().for_each(|socket| peer.serve_udp(socket));
    Ok((peer, port))
}

fn both_families() -> Result<(u16, [TcpListener; 2], [UdpSocket; 2])> {
    let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = four.local_addr()?.port();
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port))?;
    let sockets = [
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?,
        UdpSocket::bind((Ipv6Addr::LOCALHOST, port))?,
    ];
    Ok((port, [four, six], sockets))
}

/// A port that nobody has now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn tsi_tcp_of_the_guest(bed: &Bed) -> Result<()> {
    let (peer, port) = inet_peer()?;
    let forbidden = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let facts = [("port", port.to_string()), ("denied", forbidden.port().to_string())];
    let guest = script::guest(bed, &facts)
        .with(REACH_LOOPBACK)
        .with(UNROUTABLE)
        .with(["--tsi-deny", &forbidden.to_string()]);
    script::run(&guest, &peer, include_str!("guest/tcp.py"))
}

fn tsi_listeners_of_the_guest(bed: &Bed) -> Result<()> {
    let (peer, port) = inet_peer()?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let taken_port = taken.local_addr()?.port();
    let (same, host_port, six) = (free_port()?, free_port()?, free_port()?);
    let guest_port = free_port()?;
    let facts = [
        ("port", port),
        ("same", same),
        ("guest_port", guest_port),
        ("host_port", host_port),
        ("six", six),
        ("taken", taken_port),
    ]
    .map(|(name, port)| (name, port.to_string()));
    let publish = [
        format!("{same}:{same}"),
        format!("{host_port}:{guest_port}"),
        format!("[::1]:{six}:{six}"),
        format!("{taken_port}:{taken_port}"),
    ];
    let guest = script::guest(bed, &facts)
        .with(REACH_LOOPBACK)
        .with(publish.iter().flat_map(|publish| ["-p", publish]));
    script::run(&guest, &peer, include_str!("guest/listen.py"))
}

fn tsi_datagrams_of_the_guest(bed: &Bed) -> Result<()> {
    let (peer, port) = inet_peer()?;
    let second = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let forbidden = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (second_port, forbidden_at) = (second.local_addr()?.port(), forbidden.local_addr()?);
    let outer = outer_socket()?;
    let outer_at = outer.local_addr()?;
    [second, forbidden, outer]
        .into_iter()
        .for_each(|socket| peer.serve_udp(socket));
    let facts = [
        ("port", port.to_string()),
        ("udp", port.to_string()),
        ("udp2", second_port.to_string()),
        ("denied", forbidden_at.port().to_string()),
        ("outer", outer_at.ip().to_string()),
        ("outer_udp", outer_at.port().to_string()),
    ];
    let guest = script::guest(bed, &facts)
        .with(REACH_LOOPBACK)
        .with(["--tsi-deny", &forbidden_at.to_string()]);
    script::run(&guest, &peer, include_str!("guest/udp.py"))
}

/// A socket at an address of this host that is not a loopback one: a guest's own stack takes those for connected sockets.
fn outer_socket() -> Result<UdpSocket> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Sends nothing; the kernel only looks up the route.
    if probe.connect((OUTER_ADDRESS, 9)).is_ok() {
        return Ok(UdpSocket::bind(SocketAddr::new(probe.local_addr()?.ip(), 0))?);
    }
    // A machine without a network, such as the emulated one, may be given an address.
    let address = format!("{OUTER_ADDRESS}/32");
    let _ = Command::new("ip").args(["addr", "add", &address, "dev", "lo"]).status();
    UdpSocket::bind((OUTER_ADDRESS, 0)).context("this host has no address besides loopback, and can be given none")
}

fn tsi_unix_sockets_of_the_guest(bed: &Bed) -> Result<()> {
    // Short, for the sake of the 108 bytes of a socket's path: the folder on the host is beneath the root.
    let folder = tempfile::Builder::new()
        .prefix("unix-")
        .tempdir_in(bed.root.join("tmp"))?;
    let inside = folder.path().strip_prefix(&bed.root)?;
    let beyond = tempfile::tempdir()?;
    let outside = beyond.path().join("outside");
    let peer = Arc::new(Peer::default());
    peer.serve_path(&folder.path().join("stream-of-the-host"))?;
    peer.serve_path(&outside)?;
    peer.serve_unix_datagrams(UnixDatagram::bind(folder.path().join("datagrams-of-the-host"))?);
    symlink(&outside, folder.path().join("absolute-link"))?;
    symlink(
        format!("../../../../../../../..{}", outside.display()),
        folder.path().join("climbing-link"),
    )?;
    drop(UnixListener::bind(folder.path().join("nobody-listens"))?);
    fs::create_dir(folder.path().join("published"))?;
    let name = format!("tessera-{}", std::process::id());
    peer.serve_unix(UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name)?)?);
    let facts = [
        ("folder", format!("/{}", inside.display())),
        ("root", bed.root.display().to_string()),
        ("outside", outside.display().to_string()),
        ("abstract", name),
    ];
    let published = format!("/{}/published", inside.display());
    let guest = script::guest(bed, &facts).with(["--publish-unix", &published]);
    script::run(&guest, &peer, include_str!("guest/unix.py"))
}

fn tsi_policy_without_rules(bed: &Bed) -> Result<()> {
    let (peer, port) = inet_peer()?;
    let facts = [("port", port.to_string()), ("udp", port.to_string())];
    script::run(&script::guest(bed, &facts), &peer, include_str!("guest/deny.py"))
}

fn tsi_crowds_of_the_guest(bed: &Bed) -> Result<()> {
    let (peer, port) = inet_peer()?;
    let guest = script::guest(bed, &[("port", port.to_string())]).with(REACH_LOOPBACK);
    script::run(&guest, &peer, include_str!("guest/crowd.py"))
}

fn tsi_absent_vsock_routes_of_the_guest(bed: &Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let peer = Arc::new(Peer::default());
    peer.serve_path(&folder.path().join("to-host"))?;
    let facts = [
        ("to_host", "5000".to_owned()),
        ("nobody", "5001".to_owned()),
        ("from_host", "6000".to_owned()),
        ("path", path("from-host")),
    ];
    let routes = [
        format!("5000:{}", path("to-host")),
        format!("5001:{}", path("nobody-is-here")),
        format!("6000:{}:listen", path("from-host")),
    ];
    let guest = script::guest(bed, &facts)
        .with(["--net", "none"])
        .with(routes.iter().flat_map(|route| ["--vsock-port", route]));
    let outcome = script::run(&guest, &peer, include_str!("guest/vsock.py"));
    anyhow::ensure!(
        outcome.is_err() || !fs::exists(folder.path().join("from-host"))?,
        "the socket of the route is left behind"
    );
    outcome
}
