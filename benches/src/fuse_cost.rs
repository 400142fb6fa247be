//! Answers requests of one kind under the eyes of a tracer: `fuse-cost KIND`.
//!
//! The markers that it writes to stderr part the trace; see the bench `fuse_system_calls`.

use benches::fuse::{Kind, MOST, Queued};
use benches::trace::mark;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(kind) = Kind::named(&name) else {
        eprintln!("fuse-cost {}", Kind::ALL.map(|(_, name)| name).join("|"));
        return;
    };
    let mut queued = Queued::new(kind, MOST);
    mark(&format!("requests {}", queued.requests()));
    queued.process();
    mark("end");
    queued.check();
}
