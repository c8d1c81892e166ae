//! Every byte format of the protocol, each beside its round-trip test.

mod cbor;
pub mod frame;
pub mod handshake;

/// The WebSocket subprotocol that both sides name.
pub const SUBPROTOCOL: &str = "nectar.1";

/// Path of a node's WebSocket endpoint.
pub const PATH: &str = "/nectar";
