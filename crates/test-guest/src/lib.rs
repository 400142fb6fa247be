//! The driver's side of virtio, for tests and fuzzing: rings in memory, register protocol, vsock and FUSE peers
