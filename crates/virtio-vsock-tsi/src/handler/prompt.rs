//! What the guest sends goes out at once.
//!
//! Its own TCP_NODELAY never reaches us, and its kernel has gathered small writes already. The host's kernel holds back
//! nothing while all that was sent before is acknowledged, as with the first bytes of a connection, if they go in one
//! segment. So whoever sends one short request, or one short answer, costs no call.

use std::os::fd::OwnedFd;

use rustix::net::sockopt;

/// Bytes that go in one segment on any usual path; TCP's smallest is 536 with all of its options.
const ONE_SEGMENT: usize = 512;

/// Whether a socket holds back what is sent to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Prompt {
    /// Nothing was sent: there is nothing to wait for.
    #[default]
    Fresh,
    /// The first bytes may be under way.
    Started,
    /// It never does.
    Always,
}

impl Prompt {
    /// `len` bytes are sent next.
    #[inline]
    pub(super) fn before_sending(&mut self, socket: &OwnedFd, len: usize) {
        match self {
            Self::Always => {}
            Self::Fresh if len <= ONE_SEGMENT => *self = Self::Started,
            Self::Fresh | Self::Started => {
                // Refused for AF_UNIX, which needs none.
                let _ = sockopt::set_tcp_nodelay(socket, true);
                *self = Self::Always;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Whether the socket has TCP_NODELAY after each of these were sent.
    fn set_after<const N: usize>(lens: [usize; N]) -> [bool; N] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket: OwnedFd = TcpStream::connect(listener.local_addr().unwrap()).unwrap().into();
        let mut prompt = Prompt::default();
        lens.map(|len| {
            prompt.before_sending(&socket, len);
            sockopt::tcp_nodelay(&socket).unwrap()
        })
    }

    #[test]
    fn one_short_message_needs_no_call_and_what_follows_it_is_not_held_back() {
        assert_eq!(set_after([512, 1, 1]), [false, true, true]);
    }

    #[test]
    fn message_of_several_segments_is_not_held_back() {
        assert_eq!(set_after([513, 1]), [true, true]);
    }
}
