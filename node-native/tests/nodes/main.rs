//! Whole nodes over real sockets of this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[cfg(target_os = "linux")]
mod attacks;
mod bans;
mod command;
mod endpoint;
mod failover;
mod first_flight;
mod home;
mod hostile;
mod killed;
mod liar;
mod lifecycle;
mod logs;
mod lying_router;
mod operating;
mod pair;
mod posted;
mod proxy;
mod restarts;
mod scenarios;
mod services;
mod sockets;
mod support;
mod tls;
mod told;
