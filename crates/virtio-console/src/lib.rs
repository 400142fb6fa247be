//! A virtio-console device with ports for terminals, pipes and control channels
