//! Whole nodes over real sockets of this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod command;
mod hostile;
mod lifecycle;
mod scenarios;
mod services;
mod sockets;
mod support;
