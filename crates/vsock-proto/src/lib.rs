//! vsock and TSI on the wire, and their connection state machines, sans-IO
