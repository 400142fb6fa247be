//! The server on the host.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::ports::{BULK_LEN, DOWN, ECHO, PIECE_LEN, UDP_ECHO, UP};

type Service = fn(TcpStream) -> io::Result<()>;

/// Serves on the ports, for ever.
pub(crate) fn serve(address: Ipv4Addr) -> io::Result<()> {
    let services: [(u16, Service); 3] = [(ECHO, echo), (UP, take), (DOWN, give)];
    for (port, service) in services {
        let listener = TcpListener::bind((address, port))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that breaks off ends its own connection only.
                thread::spawn(move || service(stream));
            }
        });
    }
    let socket = UdpSocket::bind((address, UDP_ECHO))?;
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; PIECE_LEN];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len])?;
    }
}

fn take(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; PIECE_LEN];
    let mut left = BULK_LEN;
    while left > 0 {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        left = left.saturating_sub(len);
    }
    stream.write_all(&[1])
}

fn give(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    let piece = [0x5a; PIECE_LEN];
    for _ in 0..BULK_LEN / PIECE_LEN {
        stream.write_all(&piece)?;
    }
    Ok(())
}
