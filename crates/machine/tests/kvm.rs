//! Machines on this host's KVM, with guests of a few instructions: building, running, stopping, and leaving nothing behind.
#![cfg(feature = "kvm")]

mod common;

use std::thread;
use std::time::Duration;

use common::{FAULT, Guest, HALT, PATIENCE, RESET, SPEAK, SPIN, kvm_is_there, open};
use machine::{BuildError, Exit, HostStdio, Limits, Resources, Share, Spec, VcpuFault};

#[test]
fn guest_that_resets_ends_the_machine() {
    if kvm_is_there("guest_that_resets_ends_the_machine") {
        assert_eq!(Guest::new(RESET).build().run().unwrap(), Exit::Reset);
    }
}

#[test]
fn guest_that_faults_three_times_is_a_fault_with_its_address() {
    if kvm_is_there("guest_that_faults_three_times_is_a_fault_with_its_address") {
        let exit = Guest::new(FAULT).build().run().unwrap();
        assert!(
            matches!(exit, Exit::Fault(VcpuFault::TripleFault { vcpu: 0, .. })),
            "{exit:?}"
        );
    }
}

#[test]
fn stop_ends_a_guest_that_spins_and_one_that_halts() {
    if !kvm_is_there("stop_ends_a_guest_that_spins_and_one_that_halts") {
        return;
    }
    for code in [SPIN, HALT] {
        let running = Guest::new(code).start(2);
        running.handle.stop();
        assert_eq!(running.exit(), Exit::Stopped);
    }
}

#[test]
fn stop_before_run_is_kept() {
    if kvm_is_there("stop_before_run_is_kept") {
        let machine = Guest::new(SPIN).build();
        machine.handle().stop();
        assert_eq!(machine.run().unwrap(), Exit::Stopped);
    }
}

#[test]
fn paused_guest_says_nothing_and_goes_on_after_resume() {
    if !kvm_is_there("paused_guest_says_nothing_and_goes_on_after_resume") {
        return;
    }
    let mut running = Guest::new(SPEAK).start(2);
    running.pause();
    while running.speaks_within(Duration::ZERO) {}
    assert!(!running.speaks_within(Duration::from_millis(200)));
    running.handle.resume();
    assert!(running.speaks_within(PATIENCE));
    running.handle.stop();
    assert_eq!(running.exit(), Exit::Stopped);
}

#[test]
fn guest_that_is_paused_before_it_runs_goes_on_after_resume() {
    if !kvm_is_there("guest_that_is_paused_before_it_runs_goes_on_after_resume") {
        return;
    }
    let machine = Guest::new(RESET).build();
    let handle = machine.handle();
    handle.pause();
    let run = thread::spawn(move || machine.run());
    // Paused before it ran, it has not come to its reset.
    handle.pause();
    assert!(!run.is_finished());
    handle.resume();
    assert_eq!(run.join().unwrap().unwrap(), Exit::Reset);
}

#[test]
fn spinning_guest_pauses_many_times() {
    if !kvm_is_there("spinning_guest_pauses_many_times") {
        return;
    }
    let running = Guest::new(SPIN).start(3);
    for _ in 0..50 {
        running.pause();
        running.handle.resume();
    }
    running.handle.stop();
    assert_eq!(running.exit(), Exit::Stopped);
}

#[test]
fn two_machines_run_at_once_in_one_process() {
    if !kvm_is_there("two_machines_run_at_once_in_one_process") {
        return;
    }
    let [first, second] = [(); 2].map(|()| Guest::new(SPIN).start(1));
    for running in [&first, &second] {
        running.pause();
    }
    for running in [&first, &second] {
        running.handle.resume();
    }
    first.handle.stop();
    assert_eq!(first.exit(), Exit::Stopped);
    assert!(!second.has_ended(), "stopping one leaves the other alone");
    second.handle.stop();
    assert_eq!(second.exit(), Exit::Stopped);
}

#[test]
fn sixty_four_vcpus_are_built_and_run() {
    if kvm_is_there("sixty_four_vcpus_are_built_and_run") {
        let guest = Guest::new(RESET);
        assert_eq!(
            guest
                .build_as(&Spec {
                    cpus: 64,
                    ..guest.spec()
                })
                .run()
                .unwrap(),
            Exit::Reset
        );
    }
}

#[test]
fn missing_root_folder_is_named() {
    if !kvm_is_there("missing_root_folder_is_named") {
        return;
    }
    let guest = Guest::new(RESET);
    let spec = Spec {
        root: Some(Share::root("/no/such/folder")),
        ..guest.spec()
    };
    let kernel = open(&guest.kernel());
    let plan = machine::plan(&spec, &Limits::new(kernel.traits().clone())).unwrap();
    let resources = Resources {
        kernel,
        initramfs: None,
        stdio: HostStdio::default(),
    };
    let Err(error) = machine::build(&plan, resources) else {
        panic!("built without a root")
    };
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[test]
fn plan_for_another_kernel_is_refused() {
    let guest = Guest::new(RESET);
    let plan = machine::plan(
        &Spec {
            mem_mib: 64,
            ..guest.spec()
        },
        &Limits::bundle(),
    )
    .unwrap();
    let resources = Resources {
        kernel: open(&guest.kernel()),
        initramfs: None,
        stdio: HostStdio::default(),
    };
    assert!(matches!(machine::build(&plan, resources), Err(BuildError::OtherKernel)));
}
