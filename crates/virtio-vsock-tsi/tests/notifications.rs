//! What the driver has to notify of.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Vm, connected_to, inet_config};

/// How long a packet may wait without a notification.
const PATIENCE: Duration = Duration::from_micros(100);

fn connected() -> (Vm, u32, TcpStream) {
    connected_to(Vm::with_event_idx(inet_config()))
}

/// The host sends something, and the guest's kernel has it; its program has not read it.
fn give(vm: &mut Vm, port: u32, host: &mut TcpStream) {
    let before = vm.stream(port).unread();
    host.write_all(b"pong").unwrap();
    vm.wait("data", |vm| (vm.stream(port).unread() > before).then_some(()));
    needs_a_notification(vm);
}

/// For what the driver has sent since this was asked last.
fn needs_a_notification(vm: &mut Vm) -> bool {
    let mem = vm.peer.guest().shared_mem();
    vm.peer.tx.wants_kick(&mem)
}

fn send_data(vm: &mut Vm, port: u32) {
    let packet = vm.stream(port).data_packet(b"ping");
    vm.peer.send(&packet);
}

#[test]
fn credit_update_needs_no_notification_and_the_answer_behind_it_does() {
    let (mut vm, port, mut host) = connected();
    for _ in 0..10 {
        give(&mut vm, port, &mut host);
        assert_eq!(vm.take(port, 4), b"pong");
        assert!(!needs_a_notification(&mut vm), "for the credit update");
        send_data(&mut vm, port);
        assert!(needs_a_notification(&mut vm), "for the answer");
        vm.turn();
        host.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn credit_update_alone_is_found_in_time() {
    let (mut vm, port, mut host) = connected();
    give(&mut vm, port, &mut host);
    let held_back = vm.peer.tx_in_flight();
    vm.take(port, 4);
    assert_eq!(vm.peer.tx_in_flight(), held_back + 1);
    assert!(vm.handler.next_deadline().is_some_and(|at| at <= vm.now + PATIENCE));
    vm.now += PATIENCE;
    vm.turn();
    vm.turn_later();
    assert_eq!(vm.peer.tx_in_flight(), 0);
    send_data(&mut vm, port);
    assert!(needs_a_notification(&mut vm), "nothing is expected any more");
}

#[test]
fn data_that_comes_before_the_credit_update_is_late_once_and_by_little() {
    let (mut vm, port, mut host) = connected();
    give(&mut vm, port, &mut host);
    send_data(&mut vm, port);
    assert!(!needs_a_notification(&mut vm));
    vm.now += PATIENCE;
    vm.turn();
    host.read_exact(&mut [0; 4]).unwrap();
    for _ in 0..8 {
        give(&mut vm, port, &mut host);
        send_data(&mut vm, port);
        assert!(needs_a_notification(&mut vm), "the guess is not repeated soon");
        vm.turn();
        host.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn driver_without_event_idx_notifies_of_each_packet() {
    let (mut vm, port, mut host) = connected_to(Vm::new(inet_config()));
    give(&mut vm, port, &mut host);
    vm.take(port, 4);
    assert!(needs_a_notification(&mut vm));
}
