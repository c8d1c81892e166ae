//! What the chain says about a name, and how we come to know it.
//!
//! Nothing here opens a connection. [`Resolver`] writes JSON-RPC bodies, a driver posts them to the URL beside them
//! and hands the answers back:
//!
//! ```text
//!  lookup ──▶ pinned? ──▶ cached and fresh? ──▶ within the budget? ──▶ read ──▶ Fetch ──▶ (driver posts)
//!                                                                       ▲                      │
//!                                                                       └──── handle_answer ◀──┘
//! ```
//!
//! A read asks as many endpoints as the quorum needs for their newest block, picks one block that they all have, asks
//! each for the record *at that block's hash*, and believes what enough of them say alike.

pub mod address;

mod abi;
mod answers;
mod budget;
mod cache;
mod config;
mod drive;
mod endpoint;
mod error;
mod heights;
mod json;
mod names;
mod probe;
mod read;
mod record;
mod registries;
mod resolver;
mod rpc;
mod watch;

pub use abi::{
    NotARecord, OnchainRecord, available_call, decode_available, decode_record, resolve_call,
    token_id,
};
pub use config::{RegistryConfig, ResolverLimits};
pub use endpoint::{EndpointHealth, EndpointState};
pub use error::{FetchFailure, ResolveError};
pub use names::NameParseError;
pub use probe::ProbeReport;
pub use record::{
    Block, DNS_MAX, Host, HostError, Provenance, ROUTERS_MAX, Record, RecordError, Resolved,
    Routing,
};
pub use resolver::{
    Cause, FetchId, Freshness, Lookup, LookupId, ProbeId, Resolver, ResolverOutput,
};
pub use rpc::{call_body, call_result};
