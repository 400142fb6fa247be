//! A host without descriptors. The limit is one of the whole process, so this is the only test of its file.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::Vm;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio_vsock_tsi::{Route, VsockConfig};

/// Takes all descriptors that this process may have, of which there are few from now on.
fn exhaust() -> Vec<File> {
    let limit = Rlimit {
        current: Some(64),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// The event loop reported a client that nobody could accept, without a pause.
#[test]
fn route_without_descriptors_rests_and_serves_its_clients_when_there_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["listen", "multiplex"].map(|name| dir.path().join(name));
    let [listen, multiplex] = paths.clone();
    let mut vm = Vm::new(VsockConfig {
        routes: vec![
            Route::Listen { port: 80, path: listen },
            Route::Multiplex { path: multiplex },
        ],
        ..VsockConfig::default()
    });
    vm.listening.extend([80, 7000]);
    vm.settle();
    let clients = [(); 2].map(|()| rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap());
    let held = exhaust();
    for (client, path) in clients.iter().zip(&paths) {
        rustix::net::connect(client, &SocketAddrUnix::new(path).unwrap()).unwrap();
    }

    vm.settle();
    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(vm.watcher.events, before, "reports without end");
    assert_eq!(vm.watcher.watched(), 2);
    vm.now = vm.handler.next_deadline().expect("a time to try again");
    vm.settle();
    assert!(vm.handler.next_deadline() > Some(vm.now), "there is still none");
    let before = vm.watcher.events;
    vm.settle();
    assert_eq!(vm.watcher.events, before, "reports without end, the second time");

    drop(held);
    vm.now = vm.handler.next_deadline().expect("a time to try again");
    let [listen, multiplex] = clients.map(UnixStream::from);
    vm.wait("the first client", |vm| {
        vm.streams.keys().any(|key| key.0 == 80).then_some(())
    });
    (&multiplex).write_all(b"CONNECT 7000\n").unwrap();
    vm.wait("the second client", |vm| {
        vm.streams.keys().any(|key| key.0 == 7000).then_some(())
    });
    vm.write(80, b"hi");
    vm.turn();
    listen.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut got = [0; 2];
    (&listen).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi");
}
