//! Datagram services, asked in turn.

use std::os::fd::BorrowedFd;

use crate::backend::DatagramService;

/// The services, by port.
#[derive(Default)]
pub(super) struct DatagramServices {
    list: Vec<(u32, Box<dyn DatagramService>)>,
    /// Whose turn is next.
    next: usize,
}

impl DatagramServices {
    pub(super) fn insert(&mut self, port: u32, service: Box<dyn DatagramService>) {
        self.list.retain(|(of, _)| *of != port);
        self.list.push((port, service));
    }

    pub(super) fn at(&mut self, port: u32) -> Option<&mut Box<dyn DatagramService>> {
        let (_, service) = self.list.iter_mut().find(|(of, _)| *of == port)?;
        Some(service)
    }

    /// The next datagram of any of them, with the ports that it comes from and goes to.
    pub(super) fn next(&mut self) -> Option<(u32, u32, Vec<u8>)> {
        for _ in 0..self.list.len() {
            let turn = self.next % self.list.len();
            self.next = turn + 1;
            let (port, service) = self.list.get_mut(turn)?;
            if let Some((guest_port, bytes)) = service.next() {
                return Some((*port, guest_port, bytes));
            }
        }
        None
    }

    /// The doorbells, each with its service's index.
    pub(super) fn wakers(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let wakers = self.list.iter().map(|(_, service)| service.waker());
        wakers.enumerate().filter_map(|(index, waker)| Some((index, waker?)))
    }

    /// The doorbell of one.
    pub(super) fn waker(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.list.get(index)?.1.waker()
    }
}
