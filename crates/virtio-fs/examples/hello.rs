//! A back-end of two methods and a half, behind a virtqueue, read by a driver that speaks the protocol by hand.
//!
//!     cargo run --example hello

use test_guest::Guest;
use virtio_fs::fuse_wire::Name;
use virtio_fs::{Attr, DataOut, Entry, Errno, FileKind, FileSystem, Handle, Handler, NodeId, Server};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use vm_memory::GuestAddress;

/// One file that says hello.
struct Hello;

const FILE: NodeId = NodeId(2);
const TEXT: &[u8] = b"hello from a file system of two methods\n";

impl FileSystem for Hello {
    fn lookup(&mut self, parent: NodeId, name: Name<'_>) -> Result<Entry, Errno> {
        match (parent, name.to_bytes()) {
            (NodeId::ROOT, b"hello") => Ok(Entry {
                node: FILE,
                attr: self.getattr(FILE, None)?,
            }),
            _ => Err(Errno::ENOENT),
        }
    }

    fn getattr(&mut self, node: NodeId, _: Option<Handle>) -> Result<Attr, Errno> {
        let (mode, size) = match node {
            NodeId::ROOT => (FileKind::Directory.mode() | 0o755, 0),
            FILE => (FileKind::Regular.mode() | 0o444, TEXT.len() as u64),
            _ => return Err(Errno::ESTALE),
        };
        Ok(Attr {
            ino: node.0,
            mode,
            size,
            nlink: 1,
            ..Attr::default()
        })
    }

    fn read(&mut self, _: NodeId, _: Handle, offset: u64, out: &mut DataOut<'_>) -> Result<(), Errno> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        out.put(TEXT.get(offset..).unwrap_or_default())
    }
}

/// A request: 40 bytes of header, then arguments.
fn request(opcode: u32, node: u64, arguments: &[u8]) -> Vec<u8> {
    let len = u32::try_from(40 + arguments.len()).unwrap_or(u32::MAX).to_le_bytes();
    [
        &len[..],
        &opcode.to_le_bytes(),
        &1u64.to_le_bytes(),
        &node.to_le_bytes(),
        &[0; 16],
        arguments,
    ]
    .concat()
}

fn main() -> anyhow::Result<()> {
    let mut guest = Guest::new(1 << 20);
    let mut ring = guest.ring(16);
    let mut queue = Queue::new(ring.size())?;
    queue.try_set_desc_table_address(GuestAddress(ring.desc_table()))?;
    queue.try_set_avail_ring_address(GuestAddress(ring.avail_ring()))?;
    queue.try_set_used_ring_address(GuestAddress(ring.used_ring()))?;
    queue.set_ready(true);
    let mut handler = Handler::new(Server::new(Box::new(Hello)), vec![Ring::new(queue)]);

    let mut call = |name: &str, message: &[u8]| {
        let (asked, answer) = (guest.readable(message), guest.writable(256));
        ring.add(guest.mem(), &[asked, answer]).expect("the ring has room");
        let progress = handler.process(guest.mem());
        let used = ring.poll_used(guest.mem()).expect("the request was handled");
        println!(
            "{name}: {} bytes of reply, interrupt wanted: {}",
            used.len, progress.interrupt
        );
        guest.bytes_of(answer)[16..used.len as usize].to_vec()
    };
    call(
        "INIT",
        &request(
            26,
            0,
            &[&7u32.to_le_bytes()[..], &41u32.to_le_bytes(), &[0; 8]].concat(),
        ),
    );
    let entry = call("LOOKUP", &request(1, 1, b"hello\0"));
    let (node, _) = entry.split_first_chunk::<8>().expect("an entry starts with the node");
    let mut arguments = [0; 40];
    arguments[16..20].copy_from_slice(&200u32.to_le_bytes());
    let text = call("READ", &request(15, u64::from_le_bytes(*node), &arguments));
    print!("{}", String::from_utf8_lossy(&text));
    Ok(())
}
