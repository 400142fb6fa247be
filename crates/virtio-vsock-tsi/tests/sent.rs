//! When the driver gets back what it has sent, and what interrupts that costs.

mod common;

use std::io::{Read, Write};

use common::{Vm, connected};
use test_guest::VsockPacket;
use virtio_ring::Hold;

/// A packet of a stream that there is not, which is dropped, or answered when it is a request.
fn packet(op: u16) -> VsockPacket {
    VsockPacket {
        src_cid: 3,
        dst_cid: 2,
        src_port: 1000,
        dst_port: 1001,
        kind: 1,
        op,
        ..VsockPacket::default()
    }
}

const RST: u16 = 3;

#[test]
fn request_and_answer_cost_one_interrupt() {
    let (mut vm, port, mut host) = connected();
    vm.turn_later();
    let before = vm.interrupts;

    vm.write(port, b"ping");
    vm.turn();
    assert_eq!(
        vm.interrupts, before,
        "the driver waits for an answer, not for its packet"
    );
    host.read_exact(&mut [0; 4]).unwrap();
    host.write_all(b"pong").unwrap();
    vm.wait("the answer", |vm| (vm.interrupts > before).then_some(()));

    assert_eq!(vm.interrupts, before + 1);
    assert_eq!(vm.peer.tx_in_flight(), 1, "nor does it have to look at its packet now");
}

#[test]
fn packet_that_was_held_back_for_a_while_goes_back_with_an_answer() {
    let (mut vm, port, mut host) = connected();
    vm.turn_later();
    let before = vm.interrupts;

    vm.write(port, b"ping");
    vm.turn();
    vm.now += Hold::PATIENCE / 2;
    host.write_all(b"pong").unwrap();
    vm.wait("the answer", |vm| (vm.interrupts > before).then_some(()));

    assert_eq!(vm.interrupts, before + 1);
    assert_eq!(vm.peer.tx_in_flight(), 0);
}

#[test]
fn packet_without_an_answer_goes_back_at_the_deadline() {
    let mut vm = Vm::new(common::inet_config());
    vm.turn();
    let start = vm.now;
    vm.send(&packet(RST));
    vm.turn();
    assert_eq!((vm.peer.tx_in_flight(), vm.interrupts), (1, 0));
    assert_eq!(vm.handler.next_deadline(), Some(start + Hold::PATIENCE));

    vm.turn_later();

    assert_eq!((vm.peer.tx_in_flight(), vm.interrupts), (0, 1));
    assert_eq!(vm.handler.next_deadline(), None, "nothing is held back any more");
}

#[test]
fn many_packets_without_an_answer_go_back_at_once() {
    let mut vm = Vm::new(common::inet_config());
    for _ in 0..32 {
        vm.send(&packet(RST));
    }
    vm.turn();
    assert_eq!((vm.peer.tx_in_flight(), vm.interrupts), (0, 1));
}

#[test]
fn packet_held_back_at_a_reset_is_forgotten() {
    let mut vm = Vm::new(common::inet_config());
    vm.send(&packet(RST));
    vm.turn();

    vm.reset();

    assert_eq!(vm.handler.next_deadline(), None);
    vm.turn_later();
    assert_eq!(vm.interrupts, 0);
}

#[test]
fn packet_held_back_is_given_back_before_a_snapshot() {
    let mut vm = Vm::new(common::inet_config());
    vm.send(&packet(RST));
    vm.turn();
    let mem = vm.peer.guest().shared_mem();

    assert!(
        vm.handler.quiesce(&mut vm.queues, &*mem).unwrap(),
        "the driver is to be told"
    );

    assert_eq!(vm.peer.tx_in_flight(), 0);
}
