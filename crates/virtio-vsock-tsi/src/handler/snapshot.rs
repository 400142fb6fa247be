//! Saving and restoring (TSI specification, 14).

use std::time::Duration;

use virtio_ring::{Nearby, RingError};
use vm_memory::GuestMemoryBackend;
use vsock_proto::Transmit;
use vsock_proto::state::{ReplyState, RestoreError};

use super::transport_reset::TransportReset;
use super::{Handler, Queues};
use crate::backend::Backend;
use crate::state::VsockState;
use crate::watch::Watcher;

impl<B: Backend> Handler<B> {
    /// Gives the driver back all that waits here, receive buffers and packets that were sent, so that the rings can be
    /// saved: what was taken of them has then been used. True: interrupt the driver. Nothing else changes;
    /// [`serve`](Self::serve) goes on as before.
    ///
    /// # Errors
    /// When the receive or the transmit ring is broken.
    pub fn quiesce<M: GuestMemoryBackend>(&mut self, queues: &mut Queues, mem: &M) -> Result<bool, RingError> {
        let mem = &Nearby::new(mem);
        self.rx.give_all_back(&mut queues.rx, mem)?;
        Ok(queues.rx.publish(mem)? | queues.tx.publish(mem)?)
    }

    /// What survives a snapshot: listeners, datagram sockets, answers that are due. Nothing changes by it. Streams do not
    /// survive; [`reset`](Self::reset) tells the hosts whose bytes are lost when the handler does not go on.
    pub fn save(&self) -> VsockState {
        let mut state = self.mux.save();
        if let Some(Transmit::Packet {
            header,
            reply: Some(reply),
        }) = &self.rx.held
        {
            state.replies.push(ReplyState {
                reply_port: header.dst_port,
                control_port: header.src_port,
                reply: reply.clone(),
                accepted_at: None,
            });
        }
        VsockState {
            muxer: state,
            reset_done_at: self.transport_reset.done_at(),
        }
    }

    /// Takes over a saved state into a handler without connections: listeners listen again, datagram sockets are made
    /// again, and at the next [`serve`](Self::serve) the driver hears that its streams are gone. A listener whose place
    /// on the host is taken does not come back; who waits at it is told ECONNABORTED.
    ///
    /// # Errors
    /// What is wrong with the state, which may be anybody's work; nothing of it is done then.
    pub fn restore(
        &mut self,
        now: Duration,
        state: &VsockState,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RestoreError> {
        self.mux.restore(&state.muxer)?;
        self.run_actions(now, watcher);
        self.sync(now, watcher);
        self.transport_reset = TransportReset::after_restore(state.reset_done_at);
        Ok(())
    }
}
