//! How far the search for a route is.

use super::{output::Route, seeds::Seeds};
use crate::{
    Code, Limits,
    time::{Duration, Instant},
};
use alloc::{collections::VecDeque, vec::Vec};

/// What is being done to reach a peer.
#[derive(Debug)]
pub(super) enum Dial {
    /// Nothing.
    Idle,
    /// Its record is being read; `again` when an earlier one led nowhere.
    Resolving { again: bool },
    /// Routes are being tried, the next one while the last may still win.
    Racing(Race),
    /// All failed; the next attempt has its time.
    Backoff { until: Instant, reason: Code },
}

/// Several routes to one peer, started one after the other.
#[derive(Debug)]
pub(super) struct Race {
    /// Not started yet, best first.
    pub(super) routes: VecDeque<Route>,
    /// Under way.
    pub(super) attempts: Vec<Attempt>,
    /// Those that were begun a second time.
    pub(super) renewed: Vec<Route>,
    /// When the next route starts even if none has failed.
    pub(super) next: Option<Instant>,
    /// The record was read anew because an earlier one led nowhere.
    pub(super) again: bool,
    /// Why the record could not be read: then only a session that there is goes on.
    pub(super) unread: Option<Code>,
    /// The most telling failure so far.
    pub(super) worst: Option<Code>,
    /// The longest time to wait that a failure gave.
    pub(super) retry: Option<Duration>,
    /// The peer was reached, and knows of a newer attempt to go on with the session than ours was.
    pub(super) overtaken: bool,
}

/// One route under way.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) pipe: u64,
    pub(super) route: Route,
    pub(super) began: Instant,
    pub(super) stage: Stage,
    /// How long its handshake took.
    pub(super) handshake: Duration,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its other end may be anybody.
    Handshake,
    /// Its other end has proved to be the peer, and a session begins.
    Proved,
    /// The same, and it was asked to go on with a session.
    Asked,
    /// The same, and it is asked only if another route that was asked comes to nothing: two answers under way would take
    /// the session from each other.
    Held,
}

impl Race {
    pub(super) fn new(routes: VecDeque<Route>, again: bool, unread: Option<Code>) -> Self {
        Self {
            routes,
            attempts: Vec::new(),
            renewed: Vec::new(),
            next: None,
            again,
            unread,
            worst: unread,
            retry: None,
            overtaken: false,
        }
    }
}

/// Full jitter below a bound that doubles with every failure: nodes that lost one router do not come back as one wave.
pub(super) fn backoff(limits: &Limits, failures: u32, seeds: &mut Seeds) -> Duration {
    let bound = limits
        .backoff_min
        .saturating_mul(1 << failures.min(16))
        .min(limits.backoff_max);
    let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1);
    let spread = Duration::from_micros(seeds.next_u64() % micros);
    spread.max(limits.backoff_min.min(bound) / 2)
}
