//! Every byte format of the protocol, each beside its round-trip test.

pub mod frame;
pub mod handshake;
