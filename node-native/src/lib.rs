//! The native nectar node.

pub mod chain;
pub mod cli;
pub mod config;
pub mod dial;
pub mod http;
pub mod keystore;
pub mod metrics;
pub mod resolve;
pub mod rpc;
pub mod stream;
pub mod tls;
