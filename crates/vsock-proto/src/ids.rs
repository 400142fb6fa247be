//! Who is who: context identifiers, connection keys, proxy handles.

use std::fmt;

/// A context identifier: the address of a machine on the vsock (virtio 1.3, 5.10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid(u32);

impl Cid {
    /// The host's.
    pub const HOST: Cid = Cid(2);
    /// What a guest gets when nobody chooses.
    pub const DEFAULT_GUEST: Cid = Cid(3);

    /// A guest's identifier.
    ///
    /// # Errors
    /// For 0 to 2 and 0xffff_ffff, which the specification reserves.
    pub fn new(cid: u32) -> Result<Cid, ReservedCid> {
        match cid {
            0..=2 | u32::MAX => Err(ReservedCid(cid)),
            _ => Ok(Cid(cid)),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    pub(crate) fn wire(self) -> u64 {
        u64::from(self.0)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A context identifier that no guest may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CID {0} is reserved: a guest takes 3 to 4294967294")]
pub struct ReservedCid(pub u32);

/// What tells one proxy from another (TSI specification, 4). Streams and datagrams are separate name spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The guest's vsock port.
    pub guest_port: u32,
    /// The host's vsock port: 620 for what PROXY_CREATE made.
    pub host_port: u32,
}

/// A handle on one proxy. It names no other one until its slot has been used 65536 times more: the slot's generation, a
/// number of 16 bits, is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(u32);

impl ProxyId {
    /// The number of slots that handles can name; tokens from `SLOTS << 16` on are free for the caller's own use.
    pub const SLOTS: u16 = 0xf000;

    /// No proxy's.
    pub(crate) const NOBODY: ProxyId = ProxyId(u32::MAX);

    pub(crate) fn new(slot: u16, generation: u16) -> ProxyId {
        ProxyId(u32::from(slot) << 16 | u32::from(generation))
    }

    /// As a number, for instance as the token of an event loop.
    pub fn token(self) -> u32 {
        self.0
    }

    /// The handle that [`token`](Self::token) came from; `None` for the numbers that are free for the caller.
    pub fn from_token(token: u32) -> Option<ProxyId> {
        let id = ProxyId(token);
        (id.slot() < usize::from(ProxyId::SLOTS)).then_some(id)
    }

    /// A small number that no other live proxy has.
    pub fn slot(self) -> usize {
        (self.0 >> 16) as usize
    }

    pub(crate) fn generation(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}
