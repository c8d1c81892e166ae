//! Every byte format of the protocol, each beside its round-trip test.

mod cbor;
pub mod frame;
pub mod handshake;
pub mod upgrade;
