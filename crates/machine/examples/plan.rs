//! Prints what a machine would consist of: `cargo run -p tessera-machine --example plan -- spec.json`
//!
//! Without a file it plans a net device, a root and two shares: the case in which no vsock device is needed.

use machine::{Limits, Net, Share, Spec};

fn main() -> anyhow::Result<()> {
    let spec = match std::env::args_os().nth(1) {
        Some(file) => serde_json::from_slice(&std::fs::read(file)?)?,
        None => Spec {
            root: Some(Share::root("/srv/root")),
            shares: vec![Share::new("/srv/data", "/data"), Share::new("/srv/cache", "/cache")],
            nets: vec![Net::Tap("tap0".into())],
            ..Spec::default()
        },
    };
    print!("{}", machine::plan(&spec, &Limits::bundle())?);
    Ok(())
}
