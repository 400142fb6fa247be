//! The first process of a tessera guest, as a static binary
