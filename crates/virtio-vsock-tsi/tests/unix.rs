//! AF_UNIX over TSI, confined to one folder.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use common::{Vm, connect_body, getname_body, listen_body, sockaddr_un};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;
use virtio_vsock_tsi::{TsiFlags, VsockConfig};

/// A folder beside the root, and the root.
fn folders() -> (TempDir, std::path::PathBuf) {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    std::fs::create_dir_all(root.join("run")).unwrap();
    (outside, root)
}

fn config(root: &std::path::Path) -> VsockConfig {
    VsockConfig {
        tsi: TsiFlags {
            inet: false,
            unix: true,
        },
        unix_root: Some(std::fs::File::open(root).unwrap().into()),
        ..VsockConfig::default()
    }
}

fn connect(vm: &mut Vm, addr: &[u8]) -> (u32, i32) {
    let port = vm.fresh_port();
    vm.create(port, 1, 1);
    (port, vm.request_result(1025, &connect_body(port, addr)))
}

fn published(root: &std::path::Path, path: &str) -> VsockConfig {
    VsockConfig {
        publish_unix: vec![path.as_bytes().to_vec()],
        ..config(root)
    }
}

fn listen(vm: &mut Vm, path: &str) -> (u32, i32) {
    let port = vm.fresh_port();
    vm.create(port, 1, 1);
    let result = vm.request_result(1029, &listen_body(port, port, 5, &sockaddr_un(path)));
    (port, result)
}

#[test]
fn connect_inside_the_root_reaches_the_socket_and_names_it_as_the_guest_did() {
    let (_outside, root) = folders();
    let listener = UnixListener::bind(root.join("run/a.sock")).unwrap();
    let mut vm = Vm::new(config(&root));

    let (port, result) = connect(&mut vm, &sockaddr_un("/run/a.sock"));
    assert_eq!(result, 0);
    vm.open_stream(port, 620);
    let (mut host, _) = listener.accept().unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    vm.write(port, b"hi");
    vm.turn();
    let mut got = [0; 2];
    host.read_exact(&mut got).unwrap();
    let name = vm.request(1026, &getname_body(port, 620, 1));
    assert_eq!(&name[8..22], b"\x01\0/run/a.sock\0");
    host.write_all(&common::pattern(100_000)).unwrap();
    drop(host);

    assert_eq!(&got, b"hi");
    assert!(
        vm.read(port, 100_000) == common::pattern(100_000),
        "what was sent before the close arrives"
    );
    vm.wait_eof(port);
}

#[test]
fn links_inside_the_root_are_followed_as_the_guest_sees_them() {
    let (_outside, root) = folders();
    let _listener = UnixListener::bind(root.join("run/a.sock")).unwrap();
    symlink("/run", root.join("var")).unwrap();
    symlink("../run/a.sock", root.join("run/b.sock")).unwrap();
    let mut vm = Vm::new(config(&root));
    assert_eq!(connect(&mut vm, &sockaddr_un("/var/a.sock")).1, 0);
    assert_eq!(connect(&mut vm, &sockaddr_un("/run/b.sock")).1, 0);
}

#[test]
fn nothing_outside_the_root_is_reached() {
    let (outside, root) = folders();
    let path = outside.path().join("host.sock");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    symlink(&path, root.join("absolute")).unwrap();
    symlink("../host.sock", root.join("relative")).unwrap();
    symlink("..", root.join("up")).unwrap();
    let mut vm = Vm::new(config(&root));
    for name in [
        path.to_str().unwrap(),
        "/../host.sock",
        "/run/../../host.sock",
        "/absolute",
        "/relative",
        "/up/host.sock",
        "/proc/self/root/tmp",
    ] {
        let (_, result) = connect(&mut vm, &sockaddr_un(name));
        assert!(result < 0, "{name}: {result}");
    }
    assert!(listener.accept().is_err());
}

#[test]
fn names_without_an_absolute_path_are_refused() {
    let (_outside, root) = folders();
    let mut vm = Vm::new(config(&root));
    let mut long = vec![1, 0, b'/'];
    long.resize(110, b'x');
    for (addr, errno) in [
        (&b"\x01\0relative.sock\0"[..], -22),
        (b"\x01\0", -22),
        (b"\x01\0\0abstract", -111),
        (&long, -22),
        (&sockaddr_un("/run/none.sock"), -2),
        (&sockaddr_un("/run"), -111),
    ] {
        assert_eq!(connect(&mut vm, addr).1, errno, "{addr:?}");
    }
}

#[test]
fn listener_that_is_not_published_stays_in_the_guest() {
    let (_outside, root) = folders();
    let mut vm = Vm::new(config(&root));
    let port = vm.fresh_port();
    vm.create(port, 1, 1);
    let addr = sockaddr_un("/run/guest.sock");
    assert_eq!(vm.request_result(1029, &listen_body(port, port, 5, &addr)), -1);
    assert_eq!(
        vm.request_result(1029, &listen_body(port, port, 5, b"\x01\0./here.sock")),
        -1
    );
    assert!(!root.join("run/guest.sock").exists());
}

#[test]
fn published_listener_takes_the_place_of_the_guests_own_socket_and_cleans_up() {
    let (_outside, root) = folders();
    let path = root.join("run/guest.sock");
    let mut vm = Vm::new(VsockConfig {
        publish_unix: vec![b"/run".to_vec()],
        ..config(&root)
    });
    // What the guest's bind leaves behind: a socket that nobody listens on.
    drop(UnixListener::bind(&path).unwrap());
    let port = vm.fresh_port();
    vm.create(port, 1, 1);
    vm.listening.push(port);
    assert_eq!(
        vm.request_result(1029, &listen_body(port, port, 5, &sockaddr_un("/run/guest.sock"))),
        0
    );

    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"from the host").unwrap();
    vm.wait("a stream", |vm| (!vm.streams.is_empty()).then_some(()));
    assert_eq!(vm.read(port, 13), b"from the host");
    let q = vm.stream(port).host_port;
    let name = vm.request(1026, &getname_body(port, q, 2));
    assert_eq!(name[..10], [0, 0, 0, 0, 2, 0, 0, 0, 1, 0], "a client without a name");

    vm.release(port, 620);
    vm.turn();
    assert!(!path.exists());
}

#[test]
fn published_listener_replaces_nothing_that_lives() {
    let (_outside, root) = folders();
    let mut vm = Vm::new(VsockConfig {
        publish_unix: vec![b"/run".to_vec()],
        ..config(&root)
    });
    let _alive = UnixListener::bind(root.join("run/alive.sock")).unwrap();
    std::fs::write(root.join("run/file"), "keep me").unwrap();
    for name in ["/run/alive.sock", "/run/file"] {
        let port = vm.fresh_port();
        vm.create(port, 1, 1);
        assert_eq!(
            vm.request_result(1029, &listen_body(port, port, 5, &sockaddr_un(name))),
            -98,
            "{name}"
        );
    }
    assert_eq!(std::fs::read(root.join("run/file")).unwrap(), b"keep me");
    UnixStream::connect(root.join("run/alive.sock")).unwrap();
}

#[test]
fn datagrams_reach_a_socket_inside_the_root_and_its_answer_comes_back() {
    let (_outside, root) = folders();
    let host = UnixDatagram::bind(root.join("run/datagram.sock")).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut vm = Vm::new(config(&root));
    let port = vm.fresh_port();
    vm.create(port, 1, 2);
    let reply_port = vm.fresh_port();
    vm.send_datagram(
        reply_port,
        1027,
        &connect_body(port, &sockaddr_un("/run/datagram.sock")),
    );
    vm.send_datagram(port, 1028, b"question");
    vm.turn();
    let mut buf = [0; 64];
    let (len, from) = host.recv_from(&mut buf).unwrap();
    host.send_to_addr(b"answer", &from).unwrap();
    assert_eq!(&buf[..len], b"question");
    assert_eq!(vm.datagram_to(port), b"answer");
}

#[test]
fn connected_datagram_socket_has_its_peers_name_as_the_guest_said_it() {
    let (_outside, root) = folders();
    let _host = UnixDatagram::bind(root.join("run/d.sock")).unwrap();
    let mut vm = Vm::new(config(&root));
    let port = vm.fresh_port();
    vm.create(port, 1, 2);
    assert_eq!(
        vm.request_result(1025, &connect_body(port, &sockaddr_un("/run/d.sock"))),
        0
    );
    let name = vm.request(1026, &getname_body(port, 620, 1));
    assert_eq!(&name[8..22], b"\x01\0/run/d.sock\0");
}

#[test]
fn families_that_are_off_are_refused_with_the_reason() {
    let (_outside, root) = folders();
    let mut vm = Vm::new(config(&root));
    let port = vm.fresh_port();
    vm.create(port, 2, 1);
    assert_eq!(vm.connect(port, "127.0.0.1:80".parse().unwrap()), -97);
    let mut vm = Vm::new(common::inet_config());
    assert_eq!(connect(&mut vm, &sockaddr_un("/run/a.sock")).1, -97);
}

/// It was removed as if it were ours: a server that had started in the meantime could not be reached any more.
#[test]
fn socket_that_somebody_else_has_put_in_the_place_of_a_published_one_stays() {
    let (_outside, root) = folders();
    let mut vm = Vm::new(published(&root, "/run"));
    let (first, result) = listen(&mut vm, "/run/app.sock");
    assert_eq!(result, 0);
    std::fs::remove_file(root.join("run/app.sock")).unwrap();
    let (_second, result) = listen(&mut vm, "/run/app.sock");
    assert_eq!(result, 0);
    vm.release(first, 620);
    vm.settle();
    UnixStream::connect(root.join("run/app.sock")).unwrap();
}

#[test]
fn link_in_a_published_folder_publishes_nothing_else() {
    let (_outside, root) = folders();
    symlink("/", root.join("run/up")).unwrap();
    std::fs::create_dir(root.join("run/deep")).unwrap();
    symlink("run", root.join("link")).unwrap();
    let mut vm = Vm::new(published(&root, "/run"));
    assert_eq!(listen(&mut vm, "/run/up/secret.sock").1, -1);
    assert!(!root.join("secret.sock").exists());
    assert_eq!(listen(&mut vm, "/run/deep/a.sock").1, 0);

    let mut vm = Vm::new(published(&root, "/link"));
    assert_eq!(listen(&mut vm, "/link/b.sock").1, 0, "a link that was published itself");
    assert!(root.join("run/b.sock").exists());
    let mut vm = Vm::new(published(&root, "/link/c.sock"));
    assert_eq!(listen(&mut vm, "/link/c.sock").1, 0);
}

/// A process that owns the folder above a published one had sockets bound, with the host's rights, where it may not write.
#[test]
fn link_that_the_guest_puts_in_the_place_of_a_published_folder_is_not_followed() {
    let (_outside, root) = folders();
    let in_the_guest = |vm: &mut Vm, path: &str, link: &str, socket: &str| {
        let moved = root.join(path).with_extension("moved");
        std::fs::rename(root.join(path), &moved).unwrap();
        symlink(link, root.join(path)).unwrap();
        listen(vm, socket).1
    };
    let make = |path: &str| std::fs::create_dir_all(root.join(path)).unwrap();
    make("etc");
    make("home/run");
    let mut vm = Vm::new(published(&root, "/home/run"));
    assert_eq!(in_the_guest(&mut vm, "home/run", "/etc", "/home/run/a.sock"), 0);
    assert!(
        root.join("home/run.moved/a.sock").exists(),
        "where the published folder is now"
    );
    make("srv/run");
    let mut vm = Vm::new(published(&root, "/srv/run/b.sock"));
    assert_eq!(in_the_guest(&mut vm, "srv/run", "/etc", "/srv/run/b.sock"), 0);
    // What was not there when it was published.
    let mut vm = Vm::new(published(&root, "/opt/run"));
    symlink("/etc", root.join("opt")).unwrap();
    make("etc/run");
    assert_eq!(listen(&mut vm, "/opt/run/c.sock").1, -1);
    assert_eq!(
        std::fs::read_dir(root.join("etc")).unwrap().count(),
        1,
        "the folder run"
    );
    assert_eq!(std::fs::read_dir(root.join("etc/run")).unwrap().count(), 0);
}

/// As a service does that makes its folder anew when it starts.
#[test]
fn published_folder_may_be_made_later_and_anew_behind_a_link_of_the_roots_own() {
    let (_outside, root) = folders();
    std::fs::create_dir(root.join("var")).unwrap();
    symlink("../run", root.join("var/run")).unwrap();
    let mut vm = Vm::new(published(&root, "/var/run/app"));
    for name in ["a", "b"] {
        std::fs::create_dir(root.join("run/app")).unwrap();
        assert_eq!(listen(&mut vm, &format!("/var/run/app/{name}")).1, 0);
        assert!(root.join("run/app").join(name).exists());
        std::fs::remove_dir_all(root.join("run/app")).unwrap();
    }
}

/// It stayed in the event loop, which heard of the next one with the same number.
#[test]
fn datagram_socket_whose_connect_failed_is_closed() {
    let (_outside, root) = folders();
    let host = UnixDatagram::bind(root.join("run/d.sock")).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut vm = Vm::new(config(&root));
    let port = vm.fresh_port();
    vm.create(port, 1, 2);
    let none = connect_body(port, &sockaddr_un("/run/none.sock"));
    assert_eq!(vm.request_result(1025, &none), -2);
    vm.settle();
    let reply_port = vm.fresh_port();
    vm.send_datagram(reply_port, 1027, &connect_body(port, &sockaddr_un("/run/d.sock")));
    vm.send_datagram(port, 1028, b"there");
    vm.settle();
    let mut got = [0; 5];
    assert_eq!(host.recv(&mut got).unwrap(), 5);
    assert_eq!(vm.watcher.watched(), 1);
}

/// The way to the folder left 90 bytes of the 107 that bind(2) takes: a longer name was ENAMETOOLONG.
#[test]
fn published_listener_with_the_longest_name_that_a_guest_can_bind_appears_and_replaces_nothing_that_lives() {
    let (_outside, root) = folders();
    std::fs::create_dir(root.join("s")).unwrap();
    let last = "a".repeat(104);
    let path = format!("/s/{last}");
    let at = || {
        let inode = rustix::fs::open(root.join("s").join(&last), OFlags::PATH, Mode::empty()).unwrap();
        UnixStream::connect(format!("/proc/self/fd/{}", inode.as_raw_fd()))
    };
    let names = || std::fs::read_dir(root.join("s")).unwrap().count();
    let mut vm = Vm::new(published(&root, "/s"));
    // What the guest's bind leaves behind.
    drop(UnixListener::bind(root.join("s/b")).unwrap());
    std::fs::rename(root.join("s/b"), root.join("s").join(&last)).unwrap();

    let (port, result) = listen(&mut vm, &path);
    assert_eq!(result, 0);
    vm.listening.push(port);
    at().unwrap().write_all(b"from the host").unwrap();
    vm.wait("a stream", |vm| (!vm.streams.is_empty()).then_some(()));
    assert_eq!(vm.read(port, 13), b"from the host");
    assert_eq!(listen(&mut vm, &path).1, -98);
    assert_eq!(names(), 1, "no other name is left");
    vm.release(port, 620);
    vm.turn();
    assert_eq!(names(), 0);

    std::fs::write(root.join("s").join(&last), "keep me").unwrap();
    assert_eq!(listen(&mut vm, &path).1, -98);
    assert_eq!(std::fs::read(root.join("s").join(&last)).unwrap(), b"keep me");
}
