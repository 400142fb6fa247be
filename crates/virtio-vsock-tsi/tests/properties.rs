//! No byte is lost, doubled or reordered, whatever either side takes at once, however packets are cut, and however often
//! the guest is out of buffers.

mod common;

use std::sync::{Arc, Mutex};

use common::{GuestStream, Vm, pattern};
use proptest::prelude::*;
use virtio_vsock_tsi::{Route, ServiceRead, StreamService, VsockConfig};

/// What the host's side has taken and has still to send, and how much it does at once.
#[derive(Default)]
struct Script {
    taken: Vec<u8>,
    to_send: Vec<u8>,
    room: usize,
    burst: usize,
}

struct Scripted(Arc<Mutex<Script>>);

impl StreamService for Scripted {
    fn write(&mut self, data: &[u8]) -> usize {
        let mut script = self.0.lock().unwrap();
        let len = script.room.min(data.len());
        script.room -= len;
        script.taken.extend(&data[..len]);
        len
    }

    fn read(&mut self, buf: &mut [u8]) -> ServiceRead {
        let mut script = self.0.lock().unwrap();
        let len = script.burst.min(buf.len()).min(script.to_send.len());
        script.burst -= len;
        buf[..len].copy_from_slice(&script.to_send[..len]);
        script.to_send.drain(..len);
        if len == 0 {
            ServiceRead::Empty
        } else {
            ServiceRead::Bytes(len)
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The guest writes so much, cut there.
    Write(usize, Vec<usize>),
    /// The host takes and sends so much more.
    Host(usize, usize),
    /// The guest reads so much.
    Read(usize),
    /// The guest stops posting buffers, or starts again.
    Pause(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1usize..65536, proptest::collection::vec(0usize..70000, 0..6)).prop_map(|(len, cuts)| Step::Write(len, cuts)),
        (0usize..100_000, 0usize..100_000).prop_map(|(room, burst)| Step::Host(room, burst)),
        (1usize..200_000).prop_map(Step::Read),
        any::<bool>().prop_map(Step::Pause),
    ]
}

const HOST_BYTES: usize = 400_000;

fn run(steps: Vec<Step>) {
    let script = Arc::new(Mutex::new(Script {
        to_send: pattern(HOST_BYTES),
        ..Script::default()
    }));
    let service = {
        let script = Arc::clone(&script);
        move || Some(Scripted(Arc::clone(&script)))
    };
    let routes = vec![Route::Service {
        port: 7,
        service: Box::new(service),
    }];
    let mut vm = Vm::new(VsockConfig {
        routes,
        ..VsockConfig::default()
    });
    let port = vm.fresh_port();
    vm.open_stream(port, 7);
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Write(len, cuts) => write(&mut vm, port, len, cuts, &mut written),
            Step::Host(room, burst) => {
                let mut script = script.lock().unwrap();
                script.room += room;
                script.burst += burst;
            }
            Step::Read(max) => read.extend(vm.take(port, max)),
            Step::Pause(paused) => {
                vm.peer.repost = !paused;
                if !paused {
                    vm.peer.repost_rx();
                }
            }
        }
        wake(&mut vm);
    }
    vm.peer.repost = true;
    vm.peer.repost_rx();
    let expected = written.len();
    vm.wait("everything", |vm| {
        {
            let mut script = script.lock().unwrap();
            (script.room, script.burst) = (usize::MAX / 2, usize::MAX / 2);
        }
        wake(vm);
        read.extend(vm.take(port, usize::MAX));
        (read.len() == HOST_BYTES && script.lock().unwrap().taken.len() == expected).then_some(())
    });
    assert!(script.lock().unwrap().taken == written);
    assert!(read == pattern(HOST_BYTES));
}

fn write(vm: &mut Vm, port: u32, len: usize, cuts: Vec<usize>, written: &mut Vec<u8>) {
    let len = len.min(vm.stream(port).room());
    if len == 0 || !vm.peer.can_send() {
        return;
    }
    let data: Vec<u8> = pattern(len).iter().map(|byte| byte ^ 0x5a).collect();
    let bytes = vm.stream(port).data_packet(&data).to_bytes();
    let mut cuts: Vec<_> = cuts.into_iter().filter(|&cut| cut <= bytes.len()).collect();
    cuts.sort_unstable();
    vm.peer.send_cut(&bytes, &cuts);
    written.extend(data);
}

/// The service's waker, if it had one, would be reported so.
fn wake(vm: &mut Vm) {
    let readiness = virtio_vsock_tsi::Readiness {
        readable: true,
        ..Default::default()
    };
    vm.handler
        .socket_ready(vm.now, GuestStream::FIRST_TOKEN, readiness, &mut vm.watcher);
    vm.turn();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streams_lose_nothing_on_partial_writes_and_pauses(steps in proptest::collection::vec(step(), 0..60)) {
        run(steps);
    }
}
