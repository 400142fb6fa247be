//! On a bus of the `vm-device` crate.

use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::{Host, MmioTransport, VirtioDevice};

impl<D: VirtioDevice, H: Host<D::Worker>> MutDeviceMmio for MmioTransport<D, H> {
    fn mmio_read(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.read(offset, data);
    }

    fn mmio_write(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.write(offset, data);
    }
}
