//! A machine is stopped and paused while its user may have no signal queued. Alone in its process, which the limit is for.
#![cfg(feature = "kvm")]

mod common;

use common::{Guest, HALT, kvm_is_there};
use machine::Exit;
use rustix::process::{Resource, Rlimit, setrlimit};

#[test]
fn machine_pauses_and_stops_without_room_for_a_queued_signal() {
    if !kvm_is_there("machine_pauses_and_stops_without_room_for_a_queued_signal") {
        return;
    }
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Sigpending, nothing).unwrap();
    let running = Guest::new(HALT).start(2);
    running.pause();
    running.handle.resume();
    running.handle.stop();
    assert_eq!(running.exit(), Exit::Stopped);
}
