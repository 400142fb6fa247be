//! FUSE requests in the ring of a share, as a guest's kernel puts them there, written by hand as in the tests of
//! `virtio-fs`.

use std::path::Path;

use tempfile::TempDir;
use test_guest::{Buffer, Guest, SplitRing};
use virtio_fs::passthrough::{Passthrough, PassthroughConfig};
use virtio_fs::{Handler, Server};

#[path = "../../crates/virtio-fs/tests/common/message.rs"]
#[allow(dead_code, reason = "shared with the tests of virtio-fs")]
mod message;
#[path = "../../crates/virtio-fs/tests/common/queue.rs"]
#[allow(dead_code, reason = "shared with the tests of virtio-fs")]
mod queue;

use message::{Body, Caller, op, request, u32_at, u64_at};
use queue::{ROOT_NODE, device_ring};

/// Files in the shared folder.
const FILES: usize = 1000;
/// Bytes in each of those that are read.
const PAGE: usize = 4096;
/// Bytes in the header of a reply.
const HEADER: usize = 16;
/// Room for a page of data or of names with its header, which is what Linux gives a READDIRPLUS.
const ROOM: usize = HEADER + PAGE;
/// Pages of the largest READ, each in a descriptor of its own, as Linux sends it.
const PAGES: usize = 256;
/// Bytes in each file for the largest READ.
const LARGE: usize = PAGES * PAGE;
/// Requests of the same kind that go before those that count, so that every buffer has its size.
const WARM_UP: usize = 4;
/// The most requests that a ring of the driver's takes at a time.
pub const MOST: usize = 100;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// LOOKUP of a file that the guest does not know yet.
    LookupFirst,
    /// LOOKUP of one that it knows.
    LookupAgain,
    /// GETATTR of a file that is not open.
    Getattr,
    /// OPEN for reading.
    Open,
    /// READ of 4 KiB.
    Read,
    /// READ of 1 MiB into 256 pages that follow one another in the guest's memory.
    ReadLarge,
    /// READ of 1 MiB into 256 pages with gaps between them.
    ReadScattered,
    /// RELEASE.
    Release,
    /// CREATE.
    Create,
    /// All the READDIRPLUS that a folder of 1,000 unknown files takes.
    Readdirplus,
    /// FORGET.
    Forget,
}

impl Kind {
    /// Every kind with its name.
    pub const ALL: [(Self, &str); 11] = [
        (Self::LookupFirst, "lookup-first"),
        (Self::LookupAgain, "lookup-again"),
        (Self::Getattr, "getattr"),
        (Self::Open, "open"),
        (Self::Read, "read-4k"),
        (Self::ReadLarge, "read-1m"),
        (Self::ReadScattered, "read-1m-scattered"),
        (Self::Release, "release"),
        (Self::Create, "create"),
        (Self::Readdirplus, "readdirplus-1000"),
        (Self::Forget, "forget"),
    ];

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, its)| *its == name).map(|(kind, _)| *kind)
    }

    fn is_large(self) -> bool {
        matches!(self, Self::ReadLarge | Self::ReadScattered)
    }

    /// Bytes in each file that it is about.
    fn file_len(self) -> usize {
        if self.is_large() { LARGE } else { PAGE }
    }
}

/// Requests that a driver has put into the ring, for a device that has not looked yet.
pub struct Queued {
    guest: Guest,
    ring: SplitRing,
    handler: Handler,
    /// Where the replies to what is in the ring will be, FORGET having none.
    replies: Vec<Option<Buffer>>,
    /// Where the pages of the largest READ are.
    pages: Option<u64>,
    unique: u64,
    folder: Option<TempDir>,
}

impl Queued {
    /// `count` requests of a kind to a share of a folder of its own; of READDIRPLUS as many as the folder takes.
    ///
    /// # Panics
    /// When there is no such folder to be had, or a request fails that is needed before: then there is nothing to measure.
    #[must_use]
    pub fn new(kind: Kind, count: usize) -> Self {
        let folder = filled_folder(kind.file_len());
        let mut queued = Self::mounted(folder.path());
        if kind == Kind::Readdirplus {
            queued.add_readdirplus(folder.path());
        } else {
            queued.add_all(kind, count);
        }
        queued.folder = Some(folder);
        queued
    }

    fn add_all(&mut self, kind: Kind, count: usize) {
        for number in 0..WARM_UP {
            let target = self.prepared(kind, count + number);
            self.add(kind, count + number, target);
            self.process();
            self.check();
        }
        let targets: Vec<_> = (0..count).map(|number| self.prepared(kind, number)).collect();
        for (number, target) in targets.into_iter().enumerate() {
            self.add(kind, number, target);
        }
    }

    /// How many requests are in the ring.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.replies.len()
    }

    /// The device answers them. This is what is measured.
    pub fn process(&mut self) {
        let _ = self.handler.process(self.guest.mem());
    }

    /// Takes the replies and checks that there is no error among them.
    ///
    /// # Panics
    /// When there is one: then something else was measured.
    pub fn check(&mut self) {
        let used = self.ring.poll_all_used(self.guest.mem());
        assert_eq!(used.len(), self.replies.len(), "every request was answered");
        for reply in self.replies.drain(..).flatten() {
            assert_eq!(u32_at(&self.guest.bytes_of(reply), 4), 0, "every request has succeeded");
        }
    }

    fn mounted(folder: &Path) -> Self {
        let back_end = Passthrough::new(folder, PassthroughConfig::default()).expect("a folder");
        let mut guest = Guest::new(16 << 20);
        let rings = [guest.ring(8), guest.ring(256).with_event_idx()];
        let handler = Handler::new(Server::new(Box::new(back_end)), rings.iter().map(device_ring).collect());
        let [_, ring] = rings;
        let mut queued = Self {
            guest,
            ring,
            handler,
            replies: Vec::new(),
            pages: None,
            unique: 0,
            folder: None,
        };
        let init = Body::new().u32(7).u32(41).u32(1 << 20).u32(0x7bff_fffb).u32(0x1ff);
        queued.call(op::INIT, 0, &init.bytes(&[0; 44]));
        queued
    }

    fn put(&mut self, opcode: u32, node: u64, body: &Body) {
        let message = self.message(opcode, node, body);
        let reply = (opcode != op::FORGET).then(|| self.guest.writable(ROOM));
        let buffers: Vec<_> = std::iter::once(message).chain(reply).collect();
        self.ring.add(self.guest.mem(), &buffers).expect("a free descriptor");
        self.replies.push(reply);
    }

    fn message(&mut self, opcode: u32, node: u64, body: &Body) -> Buffer {
        self.unique += 2;
        let message = request(opcode, self.unique, node, Caller::default(), &body.0);
        self.guest.readable(&message)
    }

    /// With an indirect table, as Linux puts what has more buffers than the ring has room for. All such requests share
    /// their pages: what is read is not looked at.
    fn put_large(&mut self, node: u64, body: &Body, step: usize) {
        let pages = self.pages.unwrap_or_else(|| self.guest.alloc(2 * LARGE, PAGE as u64));
        self.pages = Some(pages);
        let message = self.message(op::READ, node, body);
        let header = self.guest.writable(HEADER);
        let room = (0..PAGES).map(|page| Buffer::writable(pages + (page * step) as u64, length(PAGE)));
        let buffers: Vec<_> = [message, header].into_iter().chain(room).collect();
        let table = self.guest.alloc(16 * buffers.len(), 16);
        let added = self.ring.add_indirect(self.guest.mem(), table, &buffers);
        added.expect("a free descriptor");
        self.replies.push(Some(header));
    }

    /// One request at once: its reply without the header.
    fn call(&mut self, opcode: u32, node: u64, body: &Body) -> Vec<u8> {
        self.put(opcode, node, body);
        let buffer = self.replies.first().copied().flatten().expect("a request with a reply");
        self.process();
        self.check();
        let reply = self.guest.bytes_of(buffer);
        reply[16..u32_at(&reply, 0) as usize].to_vec()
    }

    /// What the guest has to have done before: the node and the handle that came of it.
    fn prepared(&mut self, kind: Kind, number: usize) -> (u64, u64) {
        if matches!(kind, Kind::LookupFirst | Kind::Create) {
            return (ROOT_NODE, 0);
        }
        let node = u64_at(&self.call(op::LOOKUP, ROOT_NODE, &name("file", number)), 0);
        let handle = match kind {
            Kind::Read | Kind::ReadLarge | Kind::ReadScattered | Kind::Release => {
                u64_at(&self.call(op::OPEN, node, &Body::new().u64(0)), 0)
            }
            _ => 0,
        };
        (node, handle)
    }

    fn add(&mut self, kind: Kind, number: usize, (node, handle): (u64, u64)) {
        let (opcode, node, body) = match kind {
            Kind::LookupFirst | Kind::LookupAgain => (op::LOOKUP, ROOT_NODE, name("file", number)),
            Kind::Getattr => (op::GETATTR, node, Body::new().bytes(&[0; 16])),
            Kind::Open => (op::OPEN, node, Body::new().u64(0)),
            Kind::Read => (op::READ, node, read(handle, 0, PAGE)),
            Kind::ReadLarge => return self.put_large(node, &read(handle, 0, LARGE), PAGE),
            Kind::ReadScattered => return self.put_large(node, &read(handle, 0, LARGE), 2 * PAGE),
            Kind::Release => (op::RELEASE, node, Body::new().u64(handle).u64(0).u64(0)),
            Kind::Create => {
                let flags = Body::new().u32(0o101).u32(0o100_644).u32(0o22).u32(0);
                (op::CREATE, node, flags.bytes(&name("new", number).0))
            }
            Kind::Readdirplus => (op::READDIRPLUS, ROOT_NODE, read(handle, number as u64, PAGE)),
            Kind::Forget => (op::FORGET, node, Body::new().u64(1)),
        };
        self.put(opcode, node, &body);
    }

    /// Where each listing goes on is learnt by another guest, so that the files are unknown to this one.
    fn add_readdirplus(&mut self, folder: &Path) {
        let offsets = Self::mounted(folder).listing_offsets();
        let handle = self.opened_root();
        for offset in offsets {
            self.put(op::READDIRPLUS, ROOT_NODE, &read(handle, offset, PAGE));
        }
    }

    /// Where each READDIRPLUS of the shared folder begins, the last one, which finds nothing, too.
    fn listing_offsets(&mut self) -> Vec<u64> {
        let handle = self.opened_root();
        let mut offsets = vec![0];
        while let Some(next) = last_offset(&self.call(
            op::READDIRPLUS,
            ROOT_NODE,
            &read(handle, offsets[offsets.len() - 1], PAGE),
        )) {
            offsets.push(next);
        }
        offsets
    }

    fn opened_root(&mut self) -> u64 {
        u64_at(&self.call(op::OPENDIR, ROOT_NODE, &Body::new().u64(0)), 0)
    }
}

/// The offset after the last entry of a READDIRPLUS.
fn last_offset(listing: &[u8]) -> Option<u64> {
    const ENTRY: usize = 128;
    let (mut at, mut last) = (0, None);
    while at < listing.len() {
        last = Some(u64_at(listing, at + ENTRY + 8));
        let name_len = u32_at(listing, at + ENTRY + 16) as usize;
        at += (ENTRY + 24 + name_len).next_multiple_of(8);
    }
    last
}

fn filled_folder(file_len: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for number in 0..FILES {
        let path = folder.path().join(format!("file-{number:03}"));
        std::fs::write(&path, [b'x'; PAGE]).expect("room for a file");
        // What is beyond the first page is a hole, which takes no room.
        let file = std::fs::File::options().write(true).open(path).expect("the file");
        file.set_len(file_len as u64).expect("a file may be this long");
    }
    folder
}

fn read(handle: u64, offset: u64, size: usize) -> Body {
    Body::new()
        .u64(handle)
        .u64(offset)
        .u32(length(size))
        .u32(0)
        .u64(0)
        .u64(0)
}

fn name(what: &str, number: usize) -> Body {
    Body::new().string(format!("{what}-{number:03}").as_bytes())
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("less than 4 GiB")
}
