//! One handshake and the records under its keys.
