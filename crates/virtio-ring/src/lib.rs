//! The device side of a split virtqueue.
