//! A memory implementation that breaks its promise: slices of another length than was asked for, as in CVE-2023-41051.

use test_guest::Guest;
use vm_memory::bitmap::BS;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionMmap,
    MemoryRegionAddress, VolatileSlice,
};

/// The memory of a guest, with every slice longer than `longest` cut to it.
pub(crate) struct ShortMemory<'a> {
    regions: Vec<ShortRegion<'a>>,
}

pub(crate) struct ShortRegion<'a> {
    inner: &'a GuestRegionMmap<()>,
    longest: usize,
}

impl<'a> ShortMemory<'a> {
    pub(crate) fn new(guest: &'a Guest, longest: usize) -> Self {
        Self {
            regions: guest.mem().iter().map(|inner| ShortRegion { inner, longest }).collect(),
        }
    }
}

impl<'a> GuestMemoryBackend for ShortMemory<'a> {
    type R = ShortRegion<'a>;

    fn iter(&self) -> impl Iterator<Item = &Self::R> {
        self.regions.iter()
    }
}

impl GuestMemoryRegion for ShortRegion<'_> {
    type B = ();

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn start_addr(&self) -> GuestAddress {
        self.inner.start_addr()
    }

    fn bitmap(&self) -> BS<'_, ()> {}

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, ()>>, GuestMemoryError> {
        GuestMemoryRegion::get_slice(self.inner, offset, count.min(self.longest))
    }
}

impl GuestMemoryRegionBytes for ShortRegion<'_> {}
