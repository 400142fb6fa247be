//! The 44 bytes before every payload (virtio 1.3, 5.10.6).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a packet header.
pub const HEADER_LEN: usize = 44;

/// The largest payload that a driver may send in one packet (Linux: VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
pub const MAX_PAYLOAD_LEN: u32 = 65536;

/// Fewer bytes than what was to be read from them takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got} bytes where {need} are needed")]
pub struct Truncated {
    /// What there was.
    pub got: usize,
    /// What it takes.
    pub need: usize,
}

/// Both types of a header, from one list of its fields: what each is, and how it lies.
macro_rules! header {
    ($($(#[$doc:meta])* $name:ident: $value:ty as $wire:ident,)*) => {
        /// A header where it lies. Checked for length once; after that nothing about it can fail.
        ///
        /// To be used on a private copy: bytes that another vCPU can change do not keep their meaning.
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct HeaderView {
            $($name: $wire,)*
        }

        #[expect(clippy::len_without_is_empty, reason = "the length of the payload, not of the header")]
        impl HeaderView {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $name(&self) -> $value {
                    self.$name.get().into()
                }
            )*

            /// All fields as a value.
            #[inline]
            pub fn to_header(&self) -> Header {
                Header {
                    $($name: self.$name(),)*
                }
            }
        }

        /// A packet header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Header {
            $($(#[$doc])* pub $name: $value,)*
        }

        impl Header {
            /// The header's bytes.
            #[inline]
            pub fn emit(&self) -> [u8; HEADER_LEN] {
                zerocopy::transmute!(HeaderView {
                    $($name: $wire::new(self.$name.into()),)*
                })
            }
        }
    };
}

header! {
    /// The sender's CID.
    src_cid: u64 as U64,
    /// The receiver's CID.
    dst_cid: u64 as U64,
    /// The sender's port.
    src_port: u32 as U32,
    /// The receiver's port.
    dst_port: u32 as U32,
    /// Payload bytes that follow.
    len: u32 as U32,
    /// Which kind of socket.
    kind: PacketType as U16,
    /// What the packet does.
    op: Op as U16,
    /// For [`Op::Shutdown`]: see [`Shutdown`].
    flags: u32 as U32,
    /// The sender's receive buffer for this connection, in bytes.
    buf_alloc: u32 as U32,
    /// Bytes of this connection that the sender has consumed, modulo 2^32.
    fwd_cnt: u32 as U32,
}

impl HeaderView {
    /// A view of the first [`HEADER_LEN`] bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn new(bytes: &[u8]) -> Result<&HeaderView, Truncated> {
        match HeaderView::ref_from_prefix(bytes) {
            Ok((view, _)) => Ok(view),
            Err(_) => Err(Truncated {
                got: bytes.len(),
                need: HEADER_LEN,
            }),
        }
    }
}

impl Header {
    /// Reads a header from its bytes. Any bytes are one; whether it makes sense is decided later.
    #[inline]
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Header {
        let view: &HeaderView = zerocopy::transmute_ref!(bytes);
        view.to_header()
    }
}

macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A number without a meaning here.
            Other(u16),
        }

        impl From<u16> for $name {
            fn from(number: u16) -> $name {
                match number {
                    $($number => $name::$variant,)*
                    _ => $name::Other(number),
                }
            }
        }

        impl From<$name> for u16 {
            fn from(value: $name) -> u16 {
                match value {
                    $($name::$variant => $number,)*
                    $name::Other(number) => number,
                }
            }
        }
    };
}

open_enum! {
    /// The socket type of a packet.
    PacketType {
        /// Bytes in order, with credit.
        Stream = 1,
        /// Message boundaries on top of that; not offered.
        SeqPacket = 2,
        /// Datagrams, from the Linux patch series that TSI kernels carry.
        Datagram = 3,
    }
}

open_enum! {
    /// What a packet does.
    Op {
        /// Opens a connection.
        Request = 1,
        /// Accepts one.
        Response = 2,
        /// Refuses, aborts, or completes a close.
        Rst = 3,
        /// The sender will send no more, receive no more, or both.
        Shutdown = 4,
        /// Data.
        Rw = 5,
        /// Tells `buf_alloc` and `fwd_cnt`.
        CreditUpdate = 6,
        /// Asks for a [`Op::CreditUpdate`].
        CreditRequest = 7,
    }
}

bitflags! {
    /// The flags of [`Op::Shutdown`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Shutdown: u32 {
        /// The sender will receive no more.
        const RECEIVE = 1;
        /// The sender will send no more.
        const SEND = 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_of_known_bytes_has_every_field_in_its_place() {
        let mut bytes = [0u8; HEADER_LEN];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(i).unwrap();
        }
        let view = HeaderView::new(&bytes).unwrap();
        assert_eq!((view.src_cid(), view.fwd_cnt()), (0x0706_0504_0302_0100, 0x2b2a_2928));
        let header = Header::parse(&bytes);
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.dst_cid, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(header.src_port, 0x1312_1110);
        assert_eq!(header.dst_port, 0x1716_1514);
        assert_eq!(header.len, 0x1b1a_1918);
        assert_eq!(header.kind, PacketType::Other(0x1d1c));
        assert_eq!(header.op, Op::Other(0x1f1e));
        assert_eq!(header.flags, 0x2322_2120);
        assert_eq!(header.buf_alloc, 0x2726_2524);
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
    }

    #[test]
    fn view_of_too_few_bytes_is_refused_at_every_length() {
        for got in 0..HEADER_LEN {
            assert_eq!(
                HeaderView::new(&vec![0; got]).err(),
                Some(Truncated { got, need: HEADER_LEN })
            );
        }
        assert!(HeaderView::new(&[0; HEADER_LEN + 1]).is_ok());
    }

    proptest! {
        #[test]
        fn header_emitted_again_is_the_same_bytes(bytes: [u8; 32], rest: [u8; 12]) {
            let mut all = [0u8; HEADER_LEN];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::parse(&all).emit(), all);
        }
    }
}
