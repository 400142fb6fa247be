//! Bytes and their meaning: packet headers, socket names, control messages. All integers are little-endian except
//! where a `sockaddr` has network order.

mod control;
mod header;
mod name;

pub use control::{GETNAME_REPLY_LEN, MAX_REQUEST_LEN, MalformedRequest, Reply, Request, SocketKind, port};
pub use header::{HEADER_LEN, Header, HeaderView, MAX_PAYLOAD_LEN, Op, PacketType, Shutdown, Truncated};
pub use name::{Family, NameError, SocketName, UnixName};
