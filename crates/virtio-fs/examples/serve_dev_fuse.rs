//! Serves a folder through `/dev/fuse` of this machine, to try the server with a real kernel and no guest:
//!
//!     cargo run --example serve_dev_fuse -- SHARED MOUNT_POINT [none|auto|always|writeback] [host-locks]
//!
//! Ends when the file system is unmounted. It takes root.

use std::path::PathBuf;

use test_guest::FuseMount;
use virtio_fs::passthrough::{CachePolicy, LockPolicy, Passthrough, PassthroughConfig};
use virtio_fs::{Outcome, Server, SliceExchange};

/// The largest WRITE and a page.
const MESSAGE: usize = (1 << 20) + 4096;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(shared), Some(mount_point)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: serve_dev_fuse SHARED MOUNT_POINT [none|auto|always|writeback] [host-locks]");
        return Ok(());
    };
    let mut config = PassthroughConfig::default();
    for word in arguments {
        match word.to_string_lossy().as_ref() {
            "none" => config.cache = CachePolicy::None,
            "auto" => config.cache = CachePolicy::Auto,
            "always" => config.cache = CachePolicy::Always,
            "writeback" => (config.cache, config.writeback) = (CachePolicy::Always, true),
            "host-locks" => config.locks = LockPolicy::Host,
            other => eprintln!("{other}: not known, left out"),
        }
    }
    let mut server = Server::new(Box::new(Passthrough::new(&PathBuf::from(shared), config)?));
    let mount = FuseMount::new(&PathBuf::from(mount_point))?;
    serve(&mut server, &mount)?;
    eprintln!("{:?}", server.stats());
    Ok(())
}

/// Requests that wait for a lock are tried again after each other request, and every 10 ms.
fn serve(server: &mut Server, mount: &FuseMount) -> std::io::Result<()> {
    let connection = mount.connection();
    let mut request = vec![0; MESSAGE];
    let mut reply = vec![0; MESSAGE];
    let mut waiting: Vec<(u64, Vec<u8>)> = Vec::new();
    loop {
        if waiting.is_empty() || connection.wait(10)? {
            let Some(len) = connection.receive(&mut request)? else {
                return Ok(());
            };
            let mut exchange = SliceExchange {
                request: &request[..len],
                reply: &mut reply,
            };
            match server.handle(&mut exchange) {
                Outcome::Unanswered | Outcome::Replied(0) => {}
                Outcome::Replied(len) => connection.send(&reply[..len as usize])?,
                Outcome::Waits { unique } => waiting.push((unique, request[..len].to_vec())),
                Outcome::Later { unique, job } => {
                    let len = server.finish(&mut exchange, unique, job.run());
                    connection.send(&reply[..len as usize])?;
                }
                Outcome::Interrupts { unique } => {
                    if let Some(index) = waiting.iter().position(|(waiting, _)| *waiting == unique) {
                        let (_, request) = waiting.remove(index);
                        let mut exchange = SliceExchange {
                            request: &request,
                            reply: &mut reply,
                        };
                        let len = server.cancel(&mut exchange, unique);
                        connection.send(&reply[..len as usize])?;
                    }
                }
            }
        }
        for (unique, request) in std::mem::take(&mut waiting) {
            let mut exchange = SliceExchange {
                request: &request,
                reply: &mut reply,
            };
            match server.handle(&mut exchange) {
                Outcome::Replied(len) => connection.send(&reply[..len as usize])?,
                _ => waiting.push((unique, request)),
            }
        }
    }
}
