//! The virtio-mmio transport: register block, status machine, and the traits devices are written to
