//! Offsets and values of the register block (virtio 1.3, 4.2.2), as the match patterns that Rust needs.

use virtio_bindings::{virtio_config, virtio_mmio, virtio_ring};

/// How many bytes of guest addresses a device takes: the registers and config space.
pub const MMIO_LEN: u64 = 0x1000;

/// Offset of InterruptStatus. From here on, up to its end, a register block may be the driver's own memory
/// ([`RegisterPage`](crate::RegisterPage)).
pub const FIRST_INTERRUPT_REGISTER: u64 = virtio_mmio::VIRTIO_MMIO_INTERRUPT_STATUS as u64;

/// "virt"
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Not the legacy interface.
pub(crate) const VERSION_2: u32 = 2;
pub(crate) const VENDOR: u32 = 0;

pub(crate) const MAGIC_VALUE: u64 = virtio_mmio::VIRTIO_MMIO_MAGIC_VALUE as u64;
pub(crate) const VERSION: u64 = virtio_mmio::VIRTIO_MMIO_VERSION as u64;
pub(crate) const DEVICE_ID: u64 = virtio_mmio::VIRTIO_MMIO_DEVICE_ID as u64;
pub(crate) const VENDOR_ID: u64 = virtio_mmio::VIRTIO_MMIO_VENDOR_ID as u64;
pub(crate) const DEVICE_FEATURES: u64 = virtio_mmio::VIRTIO_MMIO_DEVICE_FEATURES as u64;
pub(crate) const DEVICE_FEATURES_SEL: u64 = virtio_mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL as u64;
pub(crate) const DRIVER_FEATURES: u64 = virtio_mmio::VIRTIO_MMIO_DRIVER_FEATURES as u64;
pub(crate) const DRIVER_FEATURES_SEL: u64 = virtio_mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL as u64;
pub(crate) const QUEUE_SEL: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_SEL as u64;
pub(crate) const QUEUE_SIZE_MAX: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_NUM_MAX as u64;
pub(crate) const QUEUE_SIZE: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_NUM as u64;
pub(crate) const QUEUE_READY: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_READY as u64;
pub(crate) const QUEUE_NOTIFY: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY as u64;
pub(crate) const INTERRUPT_STATUS: u64 = FIRST_INTERRUPT_REGISTER;
pub(crate) const INTERRUPT_ACK: u64 = virtio_mmio::VIRTIO_MMIO_INTERRUPT_ACK as u64;
pub(crate) const STATUS: u64 = virtio_mmio::VIRTIO_MMIO_STATUS as u64;
pub(crate) const QUEUE_DESC_LOW: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_DESC_LOW as u64;
pub(crate) const QUEUE_DESC_HIGH: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_DESC_HIGH as u64;
pub(crate) const QUEUE_DRIVER_LOW: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW as u64;
pub(crate) const QUEUE_DRIVER_HIGH: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_AVAIL_HIGH as u64;
pub(crate) const QUEUE_DEVICE_LOW: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_USED_LOW as u64;
pub(crate) const QUEUE_DEVICE_HIGH: u64 = virtio_mmio::VIRTIO_MMIO_QUEUE_USED_HIGH as u64;
pub(crate) const SHM_SEL: u64 = virtio_mmio::VIRTIO_MMIO_SHM_SEL as u64;
pub(crate) const SHM_LEN_LOW: u64 = virtio_mmio::VIRTIO_MMIO_SHM_LEN_LOW as u64;
pub(crate) const SHM_LEN_HIGH: u64 = virtio_mmio::VIRTIO_MMIO_SHM_LEN_HIGH as u64;
pub(crate) const SHM_BASE_LOW: u64 = virtio_mmio::VIRTIO_MMIO_SHM_BASE_LOW as u64;
pub(crate) const SHM_BASE_HIGH: u64 = virtio_mmio::VIRTIO_MMIO_SHM_BASE_HIGH as u64;
pub(crate) const CONFIG_GENERATION: u64 = virtio_mmio::VIRTIO_MMIO_CONFIG_GENERATION as u64;
pub(crate) const CONFIG: u64 = virtio_mmio::VIRTIO_MMIO_CONFIG as u64;

pub(crate) const INTERRUPT_USED_RING: u32 = virtio_mmio::VIRTIO_MMIO_INT_VRING;
pub(crate) const INTERRUPT_CONFIG: u32 = virtio_mmio::VIRTIO_MMIO_INT_CONFIG;

pub(crate) const ACKNOWLEDGE: u32 = virtio_config::VIRTIO_CONFIG_S_ACKNOWLEDGE;
pub(crate) const DRIVER: u32 = virtio_config::VIRTIO_CONFIG_S_DRIVER;
pub(crate) const DRIVER_OK: u32 = virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
pub(crate) const FEATURES_OK: u32 = virtio_config::VIRTIO_CONFIG_S_FEATURES_OK;
pub(crate) const NEEDS_RESET: u32 = virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
pub(crate) const FAILED: u32 = virtio_config::VIRTIO_CONFIG_S_FAILED;

pub(crate) const F_INDIRECT_DESC: u64 = 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
pub(crate) const F_EVENT_IDX: u64 = 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;
pub(crate) const F_VERSION_1: u64 = 1 << virtio_config::VIRTIO_F_VERSION_1;
/// What a device may not offer here, because the transport or the ring would have to do its part.
pub(crate) const F_UNSUPPORTED: u64 = (1 << virtio_config::VIRTIO_F_RING_PACKED)
    | (1 << virtio_config::VIRTIO_F_SR_IOV)
    | (1 << virtio_config::VIRTIO_F_NOTIFICATION_DATA)
    | (1 << virtio_config::VIRTIO_F_NOTIF_CONFIG_DATA)
    | (1 << virtio_config::VIRTIO_F_RING_RESET)
    | (1 << virtio_config::VIRTIO_F_ADMIN_VQ);

/// One half of a 64-bit value that has two registers.
pub(crate) fn low(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

pub(crate) fn high(value: u64) -> u32 {
    low(value >> 32)
}

pub(crate) fn set_low(value: &mut u64, half: u32) {
    *value = (*value & !0xffff_ffff) | u64::from(half);
}

pub(crate) fn set_high(value: &mut u64, half: u32) {
    *value = (*value & 0xffff_ffff) | (u64::from(half) << 32);
}
