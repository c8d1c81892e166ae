//! Whole nodes over real sockets of this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod direct;
mod routed;
mod support;
