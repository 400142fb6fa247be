//! What the guest sends is not held back by the host's kernel (Nagle's algorithm).

mod common;

use std::net::{TcpListener, TcpStream};

use common::pairs::{Pair, World};
use rustix::net::sockopt::tcp_nodelay;

/// A connection, and another descriptor of it to look at.
fn tcp() -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    // It has the other end.
    std::mem::forget(listener);
    (socket.try_clone().unwrap().into(), socket.into())
}

#[test]
fn second_message_is_not_held_back_for_the_first() {
    let mut world = World::new(tcp);
    let mut stream = world.open(1000);
    let held_back = [&b"GET /"[..], b"1", b"2"].map(|message| {
        world.send(&mut stream, message);
        world.serve();
        !tcp_nodelay(&stream.host).unwrap()
    });
    assert_eq!(held_back, [true, false, false]);
}

#[test]
fn last_bytes_of_a_long_message_are_not_held_back() {
    let mut world = World::new(tcp);
    let mut stream = world.open(1000);
    world.send(&mut stream, &[0; 2000]);
    world.serve();
    assert!(tcp_nodelay(&stream.host).unwrap());
}
