//! The server's ports.

/// TCP: sends back what comes, and closes when the client does.
pub(crate) const ECHO: u16 = 7007;
/// TCP: takes [`BULK_LEN`] bytes, then answers one.
pub(crate) const UP: u16 = 7009;
/// TCP: waits for one byte, then sends [`BULK_LEN`] bytes.
pub(crate) const DOWN: u16 = 7019;
/// UDP: sends back what comes.
pub(crate) const UDP_ECHO: u16 = 7008;

/// Bytes of a bulk transfer.
pub(crate) const BULK_LEN: usize = 32 << 20;
/// Bytes of one call to read or to write in a bulk transfer.
pub(crate) const PIECE_LEN: usize = 16 << 10;
