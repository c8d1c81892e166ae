//! Is this endpoint what the operator believes it is?

use crate::{
    name::RegistryId,
    time::{Duration, Instant},
};
use alloc::sync::Arc;

/// An endpoint that serves the right chain, is up to date and knows the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The registry that was looked for.
    pub registry: RegistryId,
    /// Height of the newest block.
    pub head: u64,
    /// How long ago that block was made, by our clock.
    pub head_age: Duration,
    /// Version of the registry's interface.
    pub registry_version: u32,
    /// Time of the whole probe: up to three answers, one after the other.
    pub took: Duration,
}

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) registry: RegistryId,
    pub(super) url: Arc<str>,
    pub(super) began: Instant,
    /// Height and age of the newest block, once known.
    pub(super) head: Option<(u64, Duration)>,
}
