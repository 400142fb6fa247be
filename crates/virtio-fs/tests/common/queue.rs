//! Messages through a virtqueue.

use test_guest::{Buffer, Guest, SplitRing};
use virtio_fs::{Handler, Server};
use virtio_queue::{Queue, QueueT};
use virtio_ring::Ring;
use vm_memory::GuestAddress;

use super::message::{AttrReply, Body, Caller, EntryReply, op, request, u32_at, u64_at};

/// The largest WRITE with its header, and room to spare.
const AREA: usize = (1 << 20) + (64 << 10);

/// Room for a reply unless a test says otherwise.
const ROOM: usize = 8192;

/// The root's node ID.
pub(crate) const ROOT_NODE: u64 = 1;

pub(crate) type Reply = Result<Vec<u8>, i32>;

/// A driver with a high-priority queue and one request queue.
pub(crate) struct Driver {
    pub(crate) guest: Guest,
    pub(crate) rings: [SplitRing; 2],
    pub(crate) handler: Handler,
    pub(crate) by: Caller,
    /// Where requests and replies are put, over and over.
    pub(crate) request_at: u64,
    pub(crate) reply_at: u64,
    unique: u64,
}

/// An entry of READDIRPLUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// What the name leads to, looked up once more; 0 where that is left open.
    pub(crate) node: u64,
    /// Where the listing goes on behind it.
    pub(crate) next: u64,
}

/// The device's side of a ring.
pub(crate) fn device_ring(ring: &SplitRing) -> Ring {
    let mut queue = Queue::new(ring.size()).unwrap();
    queue
        .try_set_desc_table_address(GuestAddress(ring.desc_table()))
        .unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(ring.avail_ring()))
        .unwrap();
    queue.try_set_used_ring_address(GuestAddress(ring.used_ring())).unwrap();
    queue.set_event_idx(ring.event_idx());
    queue.set_ready(true);
    Ring::new(queue)
}

impl Driver {
    pub(crate) fn new(server: Server) -> Self {
        let mut guest = Guest::new(4 << 20);
        let rings = [guest.ring(64).with_event_idx(), guest.ring(64).with_event_idx()];
        let request_at = guest.alloc(AREA, 4096);
        let reply_at = guest.alloc(AREA, 4096);
        let handler = Handler::new(server, rings.iter().map(device_ring).collect());
        Self {
            guest,
            rings,
            handler,
            by: Caller::default(),
            request_at,
            reply_at,
            unique: 1,
        }
    }

    /// As Linux 6.12 sends it.
    pub(crate) fn init(&mut self) -> Vec<u8> {
        self.init_with(41, 0x7bff_fffb, 0x1ff).unwrap()
    }

    pub(crate) fn init_with(&mut self, minor: u32, flags: u32, flags2: u32) -> Reply {
        let body = Body::new()
            .u32(7)
            .u32(minor)
            .u32(1 << 20)
            .u32(flags)
            .u32(flags2)
            .bytes(&[0; 44]);
        self.call(op::INIT, 0, &body.0)
    }

    /// Puts buffers into the request queue, lets the device run, and gives how many bytes it says it wrote.
    pub(crate) fn submit(&mut self, buffers: &[Buffer]) -> u32 {
        let head = self.rings[1].add(self.guest.mem(), buffers).expect("a free descriptor");
        let _ = self.handler.process(self.guest.mem());
        let used = self.rings[1].poll_used(self.guest.mem()).expect("the chain comes back");
        assert_eq!(used.id, u32::from(head));
        used.len
    }

    /// One message with `room` bytes for the reply: what was written there.
    pub(crate) fn send(&mut self, message: &[u8], room: usize) -> Vec<u8> {
        self.guest.write(self.request_at, message);
        let mut buffers = vec![Buffer::readable(self.request_at, u32::try_from(message.len()).unwrap())];
        if room > 0 {
            buffers.push(Buffer::writable(self.reply_at, u32::try_from(room).unwrap()));
        }
        let len = self.submit(&buffers);
        self.guest.read(self.reply_at, len as usize)
    }

    /// A reply with its header checked and taken off.
    pub(crate) fn call_with_room(&mut self, opcode: u32, node: u64, body: &[u8], room: usize) -> Reply {
        self.unique += 2;
        let message = request(opcode, self.unique, node, self.by, body);
        let reply = self.send(&message, room);
        assert!(reply.len() >= 16, "a reply without a header: {reply:?}");
        assert_eq!(u32_at(&reply, 0) as usize, reply.len());
        assert_eq!(u64_at(&reply, 8), self.unique);
        match i32::from_le_bytes(reply[4..8].try_into().unwrap()) {
            0 => Ok(reply[16..].to_vec()),
            error => {
                assert_eq!(reply.len(), 16);
                Err(-error)
            }
        }
    }

    pub(crate) fn call(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply {
        self.call_with_room(opcode, node, body, ROOM)
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &[u8]) -> Result<EntryReply, i32> {
        self.call(op::LOOKUP, parent, &Body::new().string(name).0)
            .map(EntryReply)
    }

    pub(crate) fn forget(&mut self, node: u64, count: u64) {
        let message = request(op::FORGET, 0, node, self.by, &count.to_le_bytes());
        assert_eq!(self.send(&message, 0), b"");
    }

    pub(crate) fn getattr(&mut self, node: u64) -> Result<AttrReply, i32> {
        let reply = self.call(op::GETATTR, node, &[0; 16])?;
        Ok(AttrReply(reply[16..].to_vec()))
    }

    pub(crate) fn mkdir(&mut self, parent: u64, name: &[u8], mode: u32) -> Result<EntryReply, i32> {
        self.call(op::MKDIR, parent, &Body::new().u32(mode).u32(0o22).string(name).0)
            .map(EntryReply)
    }

    pub(crate) fn symlink(&mut self, parent: u64, name: &[u8], target: &[u8]) -> Result<EntryReply, i32> {
        self.call(op::SYMLINK, parent, &Body::new().string(name).string(target).0)
            .map(EntryReply)
    }

    pub(crate) fn mknod(&mut self, parent: u64, name: &[u8], mode: u32, rdev: u32) -> Result<EntryReply, i32> {
        let body = Body::new().u32(mode).u32(rdev).u32(0o22).u32(0).string(name);
        self.call(op::MKNOD, parent, &body.0).map(EntryReply)
    }

    /// The entry and the handle.
    pub(crate) fn create(&mut self, parent: u64, name: &[u8], mode: u32, flags: i32) -> Result<(EntryReply, u64), i32> {
        let body = Body::new()
            .u32(flags.cast_unsigned())
            .u32(mode | 0o100_000)
            .u32(0o22)
            .u32(0)
            .string(name);
        let reply = self.call(op::CREATE, parent, &body.0)?;
        let handle = u64_at(&reply, 128);
        Ok((EntryReply(reply), handle))
    }

    /// The handle and the flags for the cache.
    pub(crate) fn open(&mut self, node: u64, flags: i32) -> Result<(u64, u32), i32> {
        let reply = self.call(op::OPEN, node, &Body::new().u32(flags.cast_unsigned()).u32(0).0)?;
        Ok((u64_at(&reply, 0), u32_at(&reply, 8)))
    }

    pub(crate) fn opendir(&mut self, node: u64) -> Result<u64, i32> {
        Ok(u64_at(&self.call(op::OPENDIR, node, &[0; 8])?, 0))
    }

    pub(crate) fn release(&mut self, node: u64, handle: u64) {
        self.call(op::RELEASE, node, &Body::new().u64(handle).u64(0).u64(0).0)
            .unwrap();
    }

    pub(crate) fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Reply {
        let body = Body::new().u64(handle).u64(offset).u32(size).u32(0).u64(0).u64(0);
        self.call_with_room(op::READ, node, &body.0, 16 + size as usize)
    }

    pub(crate) fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8], flags: u32) -> Result<u32, i32> {
        self.write_as((node, handle), offset, data, flags, 0)
    }

    /// `file_flags` are those of `open(2)`, as they are at the time of the WRITE.
    pub(crate) fn write_as(
        &mut self,
        (node, handle): (u64, u64),
        offset: u64,
        data: &[u8],
        flags: u32,
        file_flags: i32,
    ) -> Result<u32, i32> {
        let size = u32::try_from(data.len()).unwrap();
        let body = Body::new()
            .u64(handle)
            .u64(offset)
            .u32(size)
            .u32(flags)
            .u64(0)
            .u32(file_flags.cast_unsigned())
            .u32(0)
            .bytes(data);
        Ok(u32_at(&self.call(op::WRITE, node, &body.0)?, 0))
    }

    pub(crate) fn unlink(&mut self, parent: u64, name: &[u8]) -> Result<(), i32> {
        self.call(op::UNLINK, parent, &Body::new().string(name).0).map(drop)
    }

    pub(crate) fn rmdir(&mut self, parent: u64, name: &[u8]) -> Result<(), i32> {
        self.call(op::RMDIR, parent, &Body::new().string(name).0).map(drop)
    }

    pub(crate) fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<(), i32> {
        let body = Body::new().u64(to.0).u32(flags).u32(0).string(from.1).string(to.1);
        self.call(op::RENAME2, from.0, &body.0).map(drop)
    }

    pub(crate) fn link(&mut self, node: u64, parent: u64, name: &[u8]) -> Result<EntryReply, i32> {
        self.call(op::LINK, parent, &Body::new().u64(node).string(name).0)
            .map(EntryReply)
    }

    /// `valid` and the fields that follow from offset 16 on: size, lock_owner, times, nanoseconds, mode, owner.
    pub(crate) fn setattr(
        &mut self,
        node: u64,
        valid: u32,
        size: u64,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<AttrReply, i32> {
        let body = Body::new().u32(valid).u32(0).u64(0).u64(size).u64(0);
        let body = body
            .u64(0)
            .u64(0)
            .u64(0)
            .u32(0)
            .u32(0)
            .u32(0)
            .u32(mode)
            .u32(0)
            .u32(owner.0)
            .u32(owner.1)
            .u32(0);
        let reply = self.call(op::SETATTR, node, &body.0)?;
        Ok(AttrReply(reply[16..].to_vec()))
    }

    /// Sets the time of the last change, in seconds.
    pub(crate) fn set_mtime(&mut self, node: u64, secs: u64) -> Result<AttrReply, i32> {
        const MTIME: u32 = 1 << 5;
        let body = Body::new()
            .u32(MTIME)
            .u32(0)
            .u64(0)
            .u64(0)
            .u64(0)
            .u64(0)
            .u64(secs)
            .bytes(&[0; 40]);
        let reply = self.call(op::SETATTR, node, &body.0)?;
        Ok(AttrReply(reply[16..].to_vec()))
    }

    /// Names in a folder, read to the end with replies of `size` bytes.
    pub(crate) fn list(&mut self, node: u64, size: u32) -> Result<Vec<String>, i32> {
        let handle = self.opendir(node)?;
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let part = self.list_part((node, handle), &mut offset, size)?;
            if part.is_empty() {
                self.call(op::RELEASEDIR, node, &Body::new().u64(handle).u64(0).u64(0).0)?;
                return Ok(names);
            }
            names.extend(part);
        }
    }

    /// What one reply has of an open folder from `offset` on, which then is that of the rest.
    pub(crate) fn list_part(&mut self, folder: (u64, u64), offset: &mut u64, size: u32) -> Result<Vec<String>, i32> {
        let body = Body::new().u64(folder.1).u64(*offset).u32(size).u32(0).u64(0).u64(0);
        let reply = self.call_with_room(op::READDIR, folder.0, &body.0, 16 + size as usize)?;
        let (mut names, mut at) = (Vec::new(), 0);
        while at < reply.len() {
            let name_len = u32_at(&reply, at + 16) as usize;
            *offset = u64_at(&reply, at + 8);
            names.push(String::from_utf8(reply[at + 24..at + 24 + name_len].to_vec()).unwrap());
            at += (24 + name_len).next_multiple_of(8);
        }
        Ok(names)
    }

    /// One reply of READDIRPLUS, `size` bytes of it.
    pub(crate) fn list_plus(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Vec<Listed>, i32> {
        let body = Body::new().u64(handle).u64(offset).u32(size).u32(0).u64(0).u64(0);
        let reply = self.call_with_room(op::READDIRPLUS, node, &body.0, 16 + size as usize)?;
        let (mut listed, mut at) = (Vec::new(), 0);
        while at < reply.len() {
            let name_len = u32_at(&reply, at + 144) as usize;
            listed.push(Listed {
                name: String::from_utf8(reply[at + 152..at + 152 + name_len].to_vec()).unwrap(),
                node: u64_at(&reply, at),
                next: u64_at(&reply, at + 136),
            });
            at += (152 + name_len).next_multiple_of(8);
        }
        Ok(listed)
    }

    pub(crate) fn getxattr(&mut self, node: u64, name: &[u8], size: u32) -> Reply {
        self.call(op::GETXATTR, node, &Body::new().u32(size).u32(0).string(name).0)
    }

    pub(crate) fn setxattr(&mut self, node: u64, name: &[u8], value: &[u8]) -> Result<(), i32> {
        let size = u32::try_from(value.len()).unwrap();
        let body = Body::new().u32(size).u32(0).u32(0).u32(0).string(name).bytes(value);
        self.call(op::SETXATTR, node, &body.0).map(drop)
    }
}
