//! Exact counts of what a device costs the host: descriptors, registrations with KVM, epoll, threads. Needs strace and
//! `/dev/kvm`; says so where one of them is missing.
//!
//! Targets: at most 2 eventfd2, 1 KVM_IOEVENTFD, 1 KVM_IRQFD and 1 epoll_ctl for a device, all at activation; none at
//! attach; no thread before activation; nothing at all for an absent device, which is never made.

use std::collections::BTreeMap;

use benches::trace;

/// What is counted, as it stands in a trace.
const COUNTED: [(&str, &str); 5] = [
    ("eventfd2", "eventfd2("),
    ("KVM_IOEVENTFD", "KVM_IOEVENTFD"),
    ("KVM_IRQFD", "KVM_IRQFD"),
    ("epoll_ctl", "epoll_ctl("),
    ("threads", "clone3("),
];
/// The most that each may be at activation.
const TARGET: [usize; 5] = [2, 1, 1, 1, 1];

fn main() {
    if !benches::hosts::vm().is_some_and(|_| trace::has_strace()) {
        eprintln!("system_calls: skipped, since it needs /dev/kvm and strace");
        return;
    }
    println!(
        "{:<10} {:<10} {}",
        "device",
        "stage",
        COUNTED.map(|(name, _)| format!("{name:>14}")).concat()
    );
    for kind in ["console", "share", "vsock"] {
        let stages = counts(kind);
        for stage in ["attach", "activate", "reset"] {
            let counted = stages.get(stage).copied().unwrap_or_default();
            println!(
                "{kind:<10} {stage:<10} {}",
                counted.map(|count| format!("{count:>14}")).concat()
            );
        }
        assert_eq!(stages["attach"], [0; 5], "{kind}: attaching costs nothing");
        let within = stages["activate"]
            .iter()
            .zip(TARGET)
            .all(|(counted, target)| *counted <= target);
        assert!(within, "{kind}: activation is within the targets {TARGET:?}");
    }
    println!(
        "{:<10} {:<10} {}",
        "absent",
        "any",
        [0; 5].map(|count| format!("{count:>14}")).concat()
    );
    println!(
        "targets    activate   {}",
        TARGET.map(|count| format!("{count:>14}")).concat()
    );
}

/// Counts between the markers of `device-cost`.
fn counts(kind: &str) -> BTreeMap<String, [usize; 5]> {
    let stages = trace::stages(
        env!("CARGO_BIN_EXE_device-cost"),
        kind,
        "eventfd2,ioctl,epoll_ctl,clone3",
    );
    let count =
        |lines: &[String]| COUNTED.map(|(_, pattern)| lines.iter().filter(|line| line.contains(pattern)).count());
    stages
        .iter()
        .map(|(stage, lines)| (stage.clone(), count(lines)))
        .collect()
}
