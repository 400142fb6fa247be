//! On a bus of the `vm-device` crate.
#![cfg(feature = "vm-device")]

mod common;

use std::sync::{Arc, Mutex};

use common::{DEVICE_ID, TestDevice, TestHost};
use test_guest::Guest;
use virtio_transport::{MMIO_LEN, MmioTransport};
use vm_device::bus::{MmioAddress, MmioRange};
use vm_device::device_manager::{IoManager, MmioManager};

#[test]
fn transport_on_a_bus_answers_at_its_base() {
    let guest = Guest::new(0x1_0000);
    let device = TestDevice::default();
    let transport = Arc::new(Mutex::new(MmioTransport::new(
        device,
        TestHost::default(),
        guest.shared_mem(),
    )));
    let mut bus = IoManager::new();
    let range = MmioRange::new(MmioAddress(0xd000_0000), MMIO_LEN).unwrap();
    bus.register_mmio(range, transport.clone()).unwrap();

    bus.mmio_write(MmioAddress(0xd000_0070), &1_u32.to_le_bytes()).unwrap();
    let mut id = [0; 4];
    bus.mmio_read(MmioAddress(0xd000_0008), &mut id).unwrap();
    let mut status = [0; 4];
    transport.lock().unwrap().read(0x70, &mut status);

    assert_eq!(u32::from_le_bytes(id), DEVICE_ID);
    assert_eq!(u32::from_le_bytes(status), 1);
}
