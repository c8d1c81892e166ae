//! What a resolver is told, and its bounds.

use crate::{name::RegistryId, time::Duration};
use alloc::{boxed::Box, vec::Vec};

/// One registry: the ending of its names and how its chain is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Chain and contract.
    pub id: RegistryId,
    /// Ending under which people write its names, without the leading dot.
    pub tld: Box<str>,
    /// URLs of JSON-RPC endpoints, in order of preference while nothing is known of their health. None: only pinned
    /// names resolve.
    pub rpcs: Vec<Box<str>>,
    /// Endpoints that must agree. `None`: 1 of one, otherwise 2. More than there are endpoints can never be reached
    /// and is lowered to their number.
    pub quorum: Option<u8>,
}

impl RegistryConfig {
    /// Endpoints that must agree, between 1 and their number.
    pub fn effective_quorum(&self) -> u8 {
        let endpoints = u8::try_from(self.rpcs.len()).unwrap_or(u8::MAX).max(1);
        self.quorum.unwrap_or(2).clamp(1, endpoints)
    }
}

/// Bounds of a resolver, with units, defaults and worst cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverLimits {
    /// Names held. 4,096, least recently used out first; about 1 KiB each, so 4 MiB.
    pub cache_entries: usize,
    /// A record counts as fresh for this long. 60 s: a rotated key is believed for at most that.
    pub fresh_for: Duration,
    /// That a name is unknown counts for this long. 15 s.
    pub unknown_for: Duration,
    /// An endpoint has this long to answer. 4 s.
    pub fetch_timeout: Duration,
    /// After this long without an answer the next endpoint is asked as well. 1 s.
    pub hedge_after: Duration,
    /// A read gives up after this long, whatever it waits for. 15 s.
    pub read_deadline: Duration,
    /// How often a read starts over when blocks are reorganised beneath it. 4; worst case per read: this times three
    /// fetches per endpoint.
    pub read_rounds: u8,
    /// An endpoint whose newest block is further from our clock than this is stale. 120 s.
    pub head_age: Duration,
    /// Largest answer read, in bytes. 256 KiB, one at a time.
    pub answer_bytes: usize,
    /// Shortest time between two reads of one name caused by peers. 10 s.
    pub peer_name_interval: Duration,
    /// Shortest time between two reads caused by one source. 1 s.
    pub peer_source_interval: Duration,
    /// Reads caused by peers per second, in all, and as many again of names that have been read before. 20.
    pub peer_reads: usize,
    /// Look-ups of peers that wait for a read. 1,024, a few bytes each.
    pub waiting: usize,
    /// Time between two polls for changes of watched names, per registry. 12 s.
    pub watch_interval: Duration,
    /// A watched name is read again after this long even if no change was announced. 10 min.
    pub watch_refresh: Duration,
    /// Blocks read a second time at every poll, since they may have been replaced. 16.
    pub reorg_depth: u64,
    /// Blocks per poll for changes. 500; whoever is further behind reads the watched names anew instead.
    pub log_range: u64,
}

impl Default for ResolverLimits {
    fn default() -> Self {
        Self {
            cache_entries: 4096,
            fresh_for: Duration::from_secs(60),
            unknown_for: Duration::from_secs(15),
            fetch_timeout: Duration::from_secs(4),
            hedge_after: Duration::from_secs(1),
            read_deadline: Duration::from_secs(15),
            read_rounds: 4,
            head_age: Duration::from_secs(120),
            answer_bytes: 256 << 10,
            peer_name_interval: Duration::from_secs(10),
            peer_source_interval: Duration::from_secs(1),
            peer_reads: 20,
            waiting: 1024,
            watch_interval: Duration::from_secs(12),
            watch_refresh: Duration::from_secs(600),
            reorg_depth: 16,
            log_range: 500,
        }
    }
}
