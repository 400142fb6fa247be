//! Puts the two files of the contract into a folder, to boot a kernel with by hand:
//!
//! `cargo run --example files -- ROOTFS /bin/sh -c 'echo hello'`, then boot it with `init=/.tessera/init`.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use guest_init::{Config, contract, init};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), args @ [_, ..]) = (arguments.next(), &*arguments.collect::<Vec<_>>()) else {
        return Err(io::Error::other("usage: files ROOTFS PROGRAM [ARGUMENT]..."));
    };
    let config = Config {
        args: args.to_vec(),
        cwd: "/".into(),
        hostname: "guest".into(),
        ..Config::default()
    };
    put(&root, contract::INIT_PATH, init(), 0o755)?;
    put(&root, contract::CONFIG_PATH, &config.to_json(), 0o644)
}

fn put(root: &str, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let file = Path::new(root).join(path.trim_start_matches('/'));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&file, content)?;
    std::fs::set_permissions(&file, PermissionsExt::from_mode(mode))?;
    println!("{}: {} bytes", file.display(), content.len());
    Ok(())
}
