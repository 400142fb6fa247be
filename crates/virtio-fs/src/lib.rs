//! A virtio-fs device with its own FUSE server, confined to the shared folder
