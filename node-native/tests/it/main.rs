//! The native node from outside: real sockets, a real chain, the real command.

mod autobahn;
mod chain;
mod cli;
mod demo;
mod endpoints;
mod http;
mod mistakes;
mod offered;
#[path = "../nodes/posted.rs"]
mod posted;
mod rpc;
mod starts;
mod support;
mod tls;
