//! What the benches of this folder measure with.

pub mod fuse;
pub mod hosts;
pub mod kinds;
pub mod trace;
pub mod vsock;

use machine::{Share, Spec};

/// A spec whose plan has this many devices: console, root, shares, vsock. At least three.
#[must_use]
pub fn spec_of(devices: usize) -> Spec {
    let shares = (3..devices)
        .map(|n| Share::new(format!("/srv/{n}"), format!("/mnt/{n}")))
        .collect();
    Spec {
        root: Some(Share::root("/srv/root")),
        shares,
        command: vec!["/bin/true".into()],
        ..Spec::default()
    }
}
