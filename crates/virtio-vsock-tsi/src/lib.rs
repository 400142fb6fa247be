//! A virtio-vsock device that speaks TSI: the guest's sockets become the host's
