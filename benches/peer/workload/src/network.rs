//! The client's side of each measurement.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::ports::{BULK_LEN, DOWN, ECHO, PIECE_LEN, UDP_ECHO, UP};
use crate::report;

const CONNECTIONS: u32 = 300;
const SMALL_ROUNDS: u32 = 1000;
const LARGE_ROUNDS: u32 = 500;
const DATAGRAMS: u32 = 500;
/// A measurement in which no byte moves for so long has stalled.
const STALL: Duration = Duration::from_secs(5);

type Action = fn(Ipv4Addr, &Progress) -> io::Result<()>;
type Progress = Arc<AtomicUsize>;

/// Runs those that are wanted; one that stalls or fails says so, and the next one follows.
pub(crate) fn run(server: Ipv4Addr, wanted: impl Fn(&str) -> bool) {
    let measurements: [(&'static str, Action); 6] = [
        ("connect", connect),
        ("ping-pong-64", |server, moved| {
            ping_pong(server, "ping-pong-64", 64, SMALL_ROUNDS, moved)
        }),
        ("ping-pong-16k", |server, moved| {
            ping_pong(server, "ping-pong-16k", 16 << 10, LARGE_ROUNDS, moved)
        }),
        ("udp", datagrams),
        ("down", down),
        ("up", up),
    ];
    for (name, action) in measurements.into_iter().filter(|(name, _)| wanted(name)) {
        watched(name, server, action);
    }
}

/// Runs one in a thread of its own, which is left behind when it stalls.
fn watched(name: &'static str, server: Ipv4Addr, action: Action) {
    let progress = Progress::default();
    let (sender, end) = mpsc::channel();
    let moved = Arc::clone(&progress);
    thread::spawn(move || sender.send(action(server, &moved)));
    let mut before = 0;
    loop {
        match end.recv_timeout(STALL) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => return report::failed(name, &error.to_string()),
            Err(_) => {
                let now = progress.load(Ordering::Relaxed);
                if now == before {
                    return report::failed(name, &format!("stalled at {now}"));
                }
                before = now;
            }
        }
    }
}

fn connect(server: Ipv4Addr, moved: &Progress) -> io::Result<()> {
    let round = || {
        let mut stream = TcpStream::connect((server, ECHO))?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])
    };
    round()?;
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        round()?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
    report::each("connect", start.elapsed(), CONNECTIONS);
    Ok(())
}

fn ping_pong(server: Ipv4Addr, name: &str, len: usize, rounds: u32, moved: &Progress) -> io::Result<()> {
    let mut stream = TcpStream::connect((server, ECHO))?;
    stream.set_nodelay(true)?;
    let (sent, mut received) = (vec![0x5a; len], vec![0; len]);
    let mut round = || {
        stream.write_all(&sent)?;
        stream.read_exact(&mut received)
    };
    round()?;
    let start = Instant::now();
    for _ in 0..rounds {
        round()?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
    report::each(name, start.elapsed(), rounds);
    Ok(())
}

fn datagrams(server: Ipv4Addr, moved: &Progress) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((server, UDP_ECHO))?;
    let mut buffer = [0; 64];
    let mut round = || {
        socket.send(&[0x5a; 64])?;
        socket.recv(&mut buffer)
    };
    round()?;
    let start = Instant::now();
    for _ in 0..DATAGRAMS {
        round()?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
    report::each("udp", start.elapsed(), DATAGRAMS);
    Ok(())
}

fn down(server: Ipv4Addr, moved: &Progress) -> io::Result<()> {
    let mut stream = TcpStream::connect((server, DOWN))?;
    let mut buffer = [0; PIECE_LEN];
    let start = Instant::now();
    stream.write_all(&[1])?;
    let mut left = BULK_LEN;
    while left > 0 {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Err(io::Error::other(format!("the stream ended {left} bytes early")));
        }
        left -= len;
        moved.fetch_add(len, Ordering::Relaxed);
    }
    report::throughput("down", start.elapsed(), BULK_LEN);
    Ok(())
}

fn up(server: Ipv4Addr, moved: &Progress) -> io::Result<()> {
    let mut stream = TcpStream::connect((server, UP))?;
    let piece = [0x5a; PIECE_LEN];
    let start = Instant::now();
    for _ in 0..BULK_LEN / PIECE_LEN {
        stream.write_all(&piece)?;
        moved.fetch_add(PIECE_LEN, Ordering::Relaxed);
    }
    stream.read_exact(&mut [0])?;
    report::throughput("up", start.elapsed(), BULK_LEN);
    Ok(())
}
