//! Whole nodes over real sockets of this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[cfg(target_os = "linux")]
mod attacks;
mod bans;
mod command;
mod failover;
mod first_flight;
mod home;
mod hostile;
mod lifecycle;
mod logs;
mod operating;
mod proxy;
mod scenarios;
mod services;
mod sockets;
mod support;
mod told;
