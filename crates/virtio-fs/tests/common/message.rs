//! FUSE messages, written by hand.

/// Operation codes.
pub(crate) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const GETLK: u32 = 31;
    pub(crate) const SETLK: u32 = 32;
    pub(crate) const SETLKW: u32 = 33;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const SYNCFS: u32 = 50;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const STATX: u32 = 52;
}

/// Arguments of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// With its NUL.
    pub(crate) fn string(self, string: &[u8]) -> Self {
        self.bytes(string).bytes(&[0])
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
}

/// A request with its 40 bytes of header.
pub(crate) fn request(opcode: u32, unique: u64, node: u64, by: Caller, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(40 + body.len()).unwrap();
    Body::new()
        .u32(len)
        .u32(opcode)
        .u64(unique)
        .u64(node)
        .u32(by.uid)
        .u32(by.gid)
        .u32(by.pid)
        .u32(0)
        .bytes(body)
        .0
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// What an entry says: 40 bytes, then attributes.
#[derive(Clone, Debug)]
pub(crate) struct EntryReply(pub(crate) Vec<u8>);

impl EntryReply {
    pub(crate) fn node(&self) -> u64 {
        u64_at(&self.0, 0)
    }

    pub(crate) fn entry_valid(&self) -> u64 {
        u64_at(&self.0, 16)
    }

    pub(crate) fn attr(&self) -> AttrReply {
        AttrReply(self.0[40..128].to_vec())
    }
}

/// Attributes.
#[derive(Clone, Debug)]
pub(crate) struct AttrReply(pub(crate) Vec<u8>);

impl AttrReply {
    pub(crate) fn ino(&self) -> u64 {
        u64_at(&self.0, 0)
    }

    pub(crate) fn size(&self) -> u64 {
        u64_at(&self.0, 8)
    }

    pub(crate) fn mtime(&self) -> u64 {
        u64_at(&self.0, 32)
    }

    pub(crate) fn mode(&self) -> u32 {
        u32_at(&self.0, 60)
    }

    pub(crate) fn nlink(&self) -> u32 {
        u32_at(&self.0, 64)
    }

    pub(crate) fn uid(&self) -> u32 {
        u32_at(&self.0, 68)
    }

    pub(crate) fn gid(&self) -> u32 {
        u32_at(&self.0, 72)
    }
}
