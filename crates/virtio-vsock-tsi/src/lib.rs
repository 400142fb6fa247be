//! A virtio-vsock device that speaks TSI: the guest's sockets become the host's.
//!
//! [`Handler`] takes queues, guest memory and an event loop as arguments and fits any VMM; `Vsock` (feature
//! `transport`) is a thin adapter around it. What the bytes mean and what may follow what is decided by
//! [`vsock_proto`]; here are queues, memory and sockets. [`Backend`] is where those sockets come from, [`HostSockets`]
//! the real one.
//!
//! # Contract
//! - [`Handler::start`] when the driver is ready, and again after each [`Handler::reset`].
//! - [`Handler::socket_ready`] for each report of the event loop, [`Handler::deadline_passed`] when the time has come
//!   that [`Handler::next_deadline`] names, and after each batch of these, and each notification of the driver,
//!   [`Handler::serve`] once. It says whether to interrupt the driver.
//! - [`Handler::reset`] closes the sockets of all connections, which takes them out of an epoll; it tells the event loop
//!   nothing. [`Handler::finish`] comes before it when the machine ends and what the guest sent last is to arrive.
//! - One thread at a time. `now` is time since any fixed moment.
//! - An error of [`Handler::serve`] means that the driver broke a ring: call [`Handler::stop`], set DEVICE_NEEDS_RESET and
//!   call nothing more until the reset.
//!
//! # Malformed and hostile input
//! Every row of the specification's section 16, and the test that shows what becomes of it. Tests are in
//! `tests/hostile.rs` unless another file is named.
//!
//! | rings and header | test |
//! |---|---|
//! | chain loops | `tx_chain_that_loops_is_returned_and_the_next_one_works` |
//! | head out of range | `virtio-ring`'s tests, `device.rs: broken_queue_asks_for_a_reset_...` |
//! | chain outside memory | `tx_chain_outside_memory_is_returned`, `regressions.rs: line_13_...` |
//! | available index too far ahead | `avail_index_beyond_the_queue_stops_the_device`, `device.rs: broken_queue_asks_for_a_reset_...` |
//! | writable descriptor in a transmit chain | `tx_chain_with_a_writable_descriptor_is_dropped` |
//! | transmit chain under 44 bytes | `tx_chain_shorter_than_a_header_is_dropped_at_every_length` |
//! | length over 65536 | `packet_longer_than_64_kib_resets_its_stream` |
//! | length over the chain | `packet_longer_than_its_chain_resets_its_stream`, `..._for_nobody_is_dropped` |
//! | length under the chain | `streams.rs: chain_longer_than_its_packet_passes_only_the_packet_on` |
//! | header changes under us | `regressions.rs: line_14_...` |
//! | receive chain of no use | `rx_chains_that_are_of_no_use_are_returned_and_the_next_is_used`, `rx_chain_too_short_for_a_name_...` |
//! | event buffer under 4 bytes | `event_buffer_shorter_than_an_event_is_returned_and_the_next_is_used` |
//! | descriptors of length 0 | `zero_length_descriptors_in_a_chain_are_skipped` |
//!
//! | packets | test |
//! |---|---|
//! | wrong source CID | `packet_from_another_cid_is_dropped` |
//! | wrong destination CID | `request_to_another_machine_is_reset_and_anything_else_dropped` |
//! | unknown type | `packet_of_an_unknown_type_is_reset_with_that_type_unless_it_is_a_reset` |
//! | unknown stream operation | `operations_that_are_unknown_are_dropped` |
//! | datagram with another operation | `datagram_with_another_operation_is_dropped` |
//! | REQUEST with payload | `request_with_payload_is_answered_as_without` |
//! | unknown key, RST for one | `packets_for_an_unknown_stream_are_reset_and_resets_are_not` |
//! | data too early | `anything_but_request_before_request_is_a_reset`, `data_while_the_host_connects_...`, `data_in_await_response_is_a_reset` |
//! | data after SHUTDOWN | `data_after_shutdown_of_sending_is_a_reset` |
//! | data of length 0 | `data_without_bytes_only_carries_credit` |
//! | data beyond the window | `data_beyond_the_window_is_a_reset` |
//! | `fwd_cnt` backwards or ahead | `fwd_cnt_backwards_or_beyond_what_was_sent_is_a_reset` |
//! | `buf_alloc` 0 or shrinking | `guest_without_any_buffer_gets_no_data_until_it_has_one`, `regressions.rs: line_17_...` |
//! | `buf_alloc` huge | `guest_with_a_huge_buffer_gets_1_mib_in_flight_at_most` |
//! | REQUEST to 620 out of turn | `request_to_the_rendezvous_port_without_a_connected_proxy_is_reset` |
//! | RESPONSE out of turn | `response_out_of_turn_is_a_reset` |
//! | REQUEST on an open stream | `request_on_an_open_stream_resets_it` |
//! | stream packet for a listener | `stream_packets_for_a_listener_are_reset_and_it_stays` |
//! | key of a route's listener | `route_listeners_cannot_be_named_by_a_guest` |
//! | SHUTDOWN with unknown flags | `shutdown_with_unknown_flags_is_masked` |
//! | flood of CREDIT_REQUESTs | `flood_of_credit_requests_is_answered_once_per_buffer` |
//! | reserved source port | `packets_from_ports_that_no_socket_has_are_dropped` |
//!
//! | control messages | test |
//! |---|---|
//! | too short | `control_messages_of_every_short_length_are_answered_or_dropped`, `regressions.rs: line_15_...` |
//! | too long | `control_messages_with_a_tail_are_taken` |
//! | address without padding | `address_without_its_padding_is_taken` |
//! | address length wrong | `address_of_a_wrong_length_is_einval` |
//! | address family wrong | `address_of_another_family_is_einval` |
//! | AF_UNIX paths | `unix.rs: nothing_outside_the_root_is_reached`, `names_without_an_absolute_path_are_refused` |
//! | TSI off | `control_ports_without_tsi_mean_nothing` |
//! | family off, CREATE unknown | `unix.rs: families_that_are_off_...`, `creates_of_unknown_families_and_types_are_refused_...` |
//! | CREATE over the limit | `creates_beyond_the_limit_are_refused_and_the_connect_says_emfile` |
//! | CREATE for a key in use | `create_for_a_key_in_use_replaces_it` |
//! | CREATE with a reserved port | `create_for_ports_that_no_socket_has_is_refused` |
//! | CONNECT unknown | `streams.rs: connect_without_create_is_refused_...` |
//! | CONNECT on a listener, open stream, again | `listen.rs: requests_on_the_wrong_kind_of_proxy_are_einval`, `connect_on_an_open_stream_is_eisconn`, `connect_again_...` |
//! | LISTEN unknown, on a datagram socket, `vm_port` | `listen.rs: requests_on_the_wrong_kind_of_proxy_are_einval`, `listener_hears_at_the_port_that_it_named_for_that` |
//! | LISTEN backlog | `listen.rs: listen_with_any_backlog_and_again_on_a_listener_succeeds` |
//! | ACCEPT unknown, repeated | `listen.rs: requests_on_the_wrong_kind_...`, `second_accept_replaces_the_first`, `accept_that_is_asked_again_...` |
//! | GETNAME unknown, of a route | `getname_of_what_has_no_name_says_so`, `getname_and_release_of_a_plain_stream_do_nothing` |
//! | SENDTO unknown, too long | `sendto_on_unknown_and_stream_proxies_is_dropped`, `datagrams.rs: datagram_too_long_for_udp_is_dropped` |
//! | RELEASE unknown, of a route | `release_of_unknown_keys_is_ignored`, `getname_and_release_of_a_plain_stream_do_nothing` |
//! | requests without end | `second_request_on_a_reply_port_...`, `requests_without_end_and_no_receive_buffer_stay_bounded` |
//!
//! What others were caught by, tests in `tests/regressions.rs` unless another file is named:
//!
//! | defect | test |
//! |---|---|
//! | 12: memory of the guest's size | `line_12_huge_chain_with_one_byte_of_payload_passes_one_byte_on` |
//! | 13: buffers outside memory | `line_13_descriptor_that_leaves_memory_is_neither_read_nor_written` |
//! | 14: headers read twice | `line_14_header_that_changes_while_it_is_handled_is_one_header` |
//! | 15: lengths of control messages that are trusted | `line_15_control_messages_of_every_length_are_survived` |
//! | 16: forms of packets | `line_16_packets_cut_anywhere_arrive_whole` |
//! | 17: credit | `line_17_...` (2), `vsock-proto`'s `credit.rs` |
//! | 18: states and keys | `line_18_...` (3), `packets_for_an_unknown_stream_...`, `streams.rs` on half-close |
//! | 19: clients that close at once | `line_19_client_that_closes_before_its_line_is_forgotten`, `routes.rs: connect_lines_that_are_none_...` |
//! | 20: an event loop that never sleeps | `line_20_...` (2), `routes.rs: stream_service_with_bytes_that_the_guest_does_not_take_...` |
//! | 21: TSI on the host unasked | `line_21_...` (2), `listen.rs: unmapped_listener_stays_in_the_guest` |
//! | 22: reset, pause, restore | `line_22_...` (2), `snapshot.rs: line_22_nothing_comes_before_...` |

mod backend;
mod config;
#[cfg(feature = "transport")]
mod device;
mod handler;
mod sys;
mod watch;

pub use backend::{
    Backend, Connection, DatagramService, HostSockets, HostStream, Listener, Peer, Place, Route, RouteError,
    ServiceRead, StreamConnector, StreamService,
};
pub use config::{VsockConfig, VsockConfigError};
#[cfg(feature = "transport")]
pub use device::{Vsock, VsockWorker};
pub use handler::{Handler, Queues, Served};
pub use vsock_proto;
pub use vsock_proto::{Cid, Limits, Stats, TsiFlags};
pub use watch::{Interest, NoLoop, Readiness, Watcher};

/// The device ID of a socket device (virtio 1.3, 5.10.1).
pub const DEVICE_ID: u32 = 19;

/// The largest size of each queue: RX, TX, event. It is what guests are tested with.
pub const QUEUE_SIZES: [u16; 3] = [256; 3];

const VIRTIO_VSOCK_F_DGRAM: u64 = 1 << 3;
const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
const VIRTIO_F_VERSION_1: u64 = 1 << 32;

/// The features to offer. Datagrams are not in the standard; without them a TSI kernel cannot send control messages.
pub const FEATURES: u64 = VIRTIO_VSOCK_F_DGRAM | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1;

/// Fills `data` from config space at `offset`: the guest's CID as le64; what lies beyond reads as 0.
pub fn read_config(guest_cid: Cid, offset: u64, data: &mut [u8]) {
    let space = u64::from(guest_cid.get()).to_le_bytes();
    for (ahead, byte) in (0u64..).zip(data) {
        let at = offset.checked_add(ahead).and_then(|at| usize::try_from(at).ok());
        *byte = at.and_then(|at| space.get(at)).copied().unwrap_or(0);
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
