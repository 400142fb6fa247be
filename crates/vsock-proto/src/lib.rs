//! vsock and TSI without I/O: messages, and the state machines of all connections of one guest.
//!
//! [`wire`] has packet headers, as checked views and as values, and TSI control messages. [`policy`] decides where a
//! guest's sockets may lead. [`Muxer`] holds every connection: who may say what when, flow control both ways, fairness,
//! limits and deadlines. It owns no descriptor, thread, lock or clock, and no payload: bytes move by grants between
//! the guest's memory and the host's sockets, and the muxer is told how many.
//!
//! # A primer
//! A *vsock* connects a guest with its host. Each side has a CID (the host is 2) and 32-bit ports; there are streams,
//! which open with REQUEST and RESPONSE, end with SHUTDOWN and RST, and have a credit window each way, and, in
//! kernels that carry the patches, datagrams.
//!
//! *TSI* lets a guest's ordinary sockets be the host's: its kernel turns `socket(AF_INET, SOCK_STREAM)` into a vsock
//! stream and tells the host with datagrams to ports 1024 to 1031 what the program asked for.
//!
//! ```text
//!   guest                                              here                        host
//!   connect(a)  datagram 1024 CREATE(p, family, kind) -> a proxy, key (p, 620)
//!               datagram 1025 CONNECT(p, a) ----------> Action::Connect ---------> connect()
//!               <---------- datagram 1025 result 0      Muxer::connected <-------- done
//!               stream REQUEST p -> 620 --------------> Action::Opened
//!               <---------------- stream RESPONSE
//!   write()     stream RW ----------------------------> Received::Stream --------> send()
//!   read()      <---------------------- stream RW       Transmit::Stream <-------- recv()
//!   close()     datagram 1031 RELEASE(p, 620)
//!               stream SHUTDOWN ----------------------> flush, Action::Close ----> close()
//!               <--------------------- stream RST
//! ```
//!
//! Section numbers after "TSI specification" are those of `PROTOCOL.md`.
//!
//! # Contract
//! One input, then drain: after a call that is an input, and the reports that it asks for ([`Muxer::flushed`],
//! [`Muxer::stream_read`]), do what [`Muxer::poll_action`] says until it says nothing. Data packets of one stream that follow
//! one another may share one report. When the driver has a receive buffer, and only then, ask [`Muxer::poll_transmit`].
//!
//! ```
//! use std::time::Duration;
//! use vsock_proto::wire::Header;
//! use vsock_proto::{Action, Errno, Muxer, Received, StreamRead, Transmit};
//!
//! /// A packet came from the driver. `send` writes payload to the host socket of a stream.
//! fn packet(mux: &mut Muxer, now: Duration, header: &Header, payload: &[u8], send: impl Fn(&[u8]) -> u32) {
//!     let available = u32::try_from(payload.len()).unwrap_or(u32::MAX);
//!     match mux.receive(now, header, available, payload) {
//!         // What `send` does not take is kept, and `flushed` again when it is taken.
//!         Received::Stream { id, len } => mux.flushed(id, send(&payload[..len as usize])),
//!         Received::Datagram { .. } | Received::RouteDatagram { .. } | Received::Nothing => {}
//!     }
//!     drain(mux, now);
//! }
//!
//! /// The driver has a receive buffer. `recv` reads from the host socket of a stream into it.
//! fn buffer(mux: &mut Muxer, now: Duration, recv: impl Fn(u32) -> u32) -> Option<Header> {
//!     let header = match mux.poll_transmit()? {
//!         Transmit::Packet { header, .. } | Transmit::Time { header, .. } => Some(header),
//!         Transmit::Stream { id, max_bytes, .. } => {
//!             let header = match recv(max_bytes) {
//!                 0 => None,
//!                 len => mux.stream_header(id, len),
//!             };
//!             mux.stream_read(id, if header.is_some() { StreamRead::More } else { StreamRead::Eof });
//!             header
//!         }
//!         Transmit::Datagram { .. } => None,
//!     };
//!     drain(mux, now);
//!     header
//! }
//!
//! /// Does what is to be done with host sockets.
//! fn drain(mux: &mut Muxer, now: Duration) {
//!     while let Some(action) = mux.poll_action() {
//!         match action {
//!             // Nothing can be reached here.
//!             Action::Connect { id, .. } => mux.connected(now, id, Err(Errno::ENETUNREACH)),
//!             _ => {}
//!         }
//!     }
//! }
//! ```
//!
//! Time is whatever the caller passes as `now`, from any fixed moment on; [`Muxer::next_deadline`] tells when
//! [`Muxer::handle_timeout`] wants to be called.
//!
//! # Laws
//! Held by property tests over lists of operations (`tests/properties.rs`), shared with a fuzz target:
//! - bytes in flight to the guest never pass its credit, nor packets what Linux holds for it;
//! - bytes for the host never pass the windows that were announced, and those together never pass the limit;
//! - each REQUEST gets one RESPONSE or RST, and no RESPONSE comes without one;
//! - a host's socket is closed in order only when it has taken all that the guest sent, else with a reset (AF_UNIX has none: its
//!   peer sees the end of file);
//! - after the host's socket is closed a stream says nothing but RST;
//! - a reset closes everything.

#![forbid(unsafe_code)]

mod config;
mod credit;
mod errno;
mod ids;
mod mux;
pub mod policy;
pub mod state;
mod stats;
mod stream;
pub mod wire;

pub use config::{Config, Limits, Publish, TsiFlags};
pub use errno::Errno;
pub use ids::{Cid, Key, ProxyId, ReservedCid};
pub use mux::{Action, DatagramRead, MAX_TURN_PACKETS, Muxer, Received, StreamRead, Ticket, Transmit};
pub use stats::{Counter, Stats};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
