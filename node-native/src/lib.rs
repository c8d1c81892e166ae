//! The native nectar node: everything around node-core that needs a file, a socket or a clock.
//!
//! ```text
//!  cli       what can be typed                     config    nectar.toml, NECTAR_*, flags
//!  keystore  key files                             chain     transactions
//!  http      accepts: WebSockets, the page, health, metrics
//!  dial      opens WebSockets to addresses that the chain names
//!  stream    the one socket type of both directions, its bounds
//!  rpc       posts what the core's resolver writes      resolve   drives it for one look-up
//!  tls       certificates                          metrics   what is counted
//!  bans      who may not come back, on disk
//! ```

pub mod bans;
pub mod chain;
pub mod cli;
pub mod config;
pub mod dial;
pub mod http;
pub mod keystore;
pub mod metrics;
pub mod node;
pub mod resolve;
pub mod rpc;
pub mod stream;
pub mod tls;
