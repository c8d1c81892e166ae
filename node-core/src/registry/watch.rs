//! Which names changed on the chain while their sessions live.
//!
//! Every interval one endpoint, another one each time, is asked for its newest block and for the changes since the poll
//! before the last. Blocks are thus read by two endpoints, and again as long as they may be reorganised: an endpoint that
//! withholds a change delays it by one interval, and a change that vanishes from the chain counts as a change.

use super::{abi::token_id, config::ResolverLimits, rpc::Change};
use crate::{
    name::Name,
    sorted::{Map, Set},
    time::{Duration, Instant},
};
use alloc::vec::Vec;

#[derive(Debug, Default)]
pub(super) struct Watch {
    names: Map<[u8; 32], Watched>,
    next_poll: Option<Instant>,
    turn: usize,
    /// Heights up to which the last poll and the one before it looked.
    covered: [Option<u64>; 2],
    /// Changes seen in blocks that will be read again.
    seen: Set<Change>,
    /// Polls in a row whose logs were refused.
    refused: usize,
}

#[derive(Debug)]
struct Watched {
    name: Name,
    /// How often it was asked for.
    users: usize,
    /// Changes from this height on matter and were not looked for yet.
    since: Option<u64>,
    dirty: Option<Dirty>,
    read_at: Instant,
}

/// To be read again at this height or above.
#[derive(Debug)]
struct Dirty {
    height: u64,
    tries: u8,
}

/// How often a change is followed up before it is taken for an invention.
const TRIES: u8 = 5;
/// Above this many names the endpoint is asked for all changes of the registry.
const TOKENS_MAX: usize = 200;
/// Changes remembered, about 100 bytes each; beyond it some names are read once more than needed.
const SEEN_MAX: usize = 4096;
/// Where logs are refused, watched names are read this often instead.
const WITHOUT_LOGS: Duration = Duration::from_secs(60);

/// Blocks to look through, both ends included, and for which tokens (none: for all).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) tokens: Vec<[u8; 32]>,
}

impl Watch {
    pub(super) fn add(
        &mut self,
        name: &Name,
        known_at: Option<u64>,
        limits: &ResolverLimits,
        now: Instant,
    ) {
        let watched = self
            .names
            .get_or_insert_with(token_id(&name.label), || Watched {
                name: name.clone(),
                users: 0,
                since: known_at,
                dirty: None,
                read_at: now,
            });
        watched.users += 1;
        self.next_poll.get_or_insert(now + limits.watch_interval);
    }

    pub(super) fn remove(&mut self, name: &Name) {
        let token = token_id(&name.label);
        let Some(watched) = self.names.get_mut(&token) else {
            return;
        };
        watched.users -= 1;
        if watched.users == 0 {
            self.names.remove(&token);
        }
        if self.names.is_empty() {
            *self = Self {
                turn: self.turn,
                ..Self::default()
            };
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.values().map(|watched| &watched.name)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_poll
    }

    /// Begins a poll if one is due, and says which endpoint's turn it is.
    pub(super) fn begin(
        &mut self,
        endpoints: usize,
        limits: &ResolverLimits,
        now: Instant,
    ) -> Option<usize> {
        if self.names.is_empty() || self.next_poll.is_none_or(|at| now < at) {
            return None;
        }
        self.next_poll = Some(now + limits.watch_interval);
        self.turn = self.turn.wrapping_add(1);
        self.turn.checked_rem(endpoints)
    }

    /// The blocks to look through up to `head`, or `None` if they are too many: then every name is read again.
    pub(super) fn range(&mut self, head: u64, limits: &ResolverLimits) -> Option<Range> {
        let [last, before] = self.covered;
        let covered = before
            .or(last)
            .unwrap_or(head)
            .min(head)
            .saturating_sub(limits.reorg_depth);
        let from = self
            .names
            .values()
            .filter_map(|watched| watched.since)
            .fold(covered, u64::min);
        if head.saturating_sub(from) > limits.log_range {
            self.names
                .values_mut()
                .for_each(|watched| watched.soil(head));
            self.seen.clear();
            self.advance(head);
            // What lies before needs no second look: it is not looked at, but read.
            self.covered = [Some(head); 2];
            return None;
        }
        let tokens = match self.names.len() {
            ..=TOKENS_MAX => self.names.keys().copied().collect(),
            _ => Vec::new(),
        };
        Some(Range {
            from,
            to: head,
            tokens,
        })
    }

    /// Takes the changes that an endpoint found, and returns the names that are no longer known.
    pub(super) fn changes(&mut self, from: u64, to: u64, changes: Vec<Change>) -> Vec<Name> {
        self.refused = 0;
        let inside = |change: &Change| (from..=to).contains(&change.block.number);
        let found: Set<Change> = changes
            .into_iter()
            .filter(|change| inside(change) && self.names.contains_key(&change.token))
            .take(SEEN_MAX)
            .collect();
        let mut stale = Set::default();
        for change in found.difference(&self.seen) {
            if let Some(watched) = self.names.get_mut(&change.token) {
                watched.soil(change.block.number);
                stale.insert(watched.name.clone());
            }
        }
        for change in self.seen.difference(&found).filter(|change| inside(change)) {
            if let Some(watched) = self.names.get_mut(&change.token) {
                watched.soil(0);
                stale.insert(watched.name.clone());
            }
        }
        self.seen.retain(|change| change.block.number > to);
        self.seen.extend(found);
        self.advance(to);
        stale.into_iter().collect()
    }

    /// The endpoint does not give logs.
    pub(super) fn refused(&mut self, endpoints: usize, now: Instant) {
        self.refused += 1;
        if self.refused >= endpoints.max(2) {
            for watched in self
                .names
                .values_mut()
                .filter(|watched| now.since(watched.read_at) >= WITHOUT_LOGS)
            {
                watched.read_at = now;
                watched.soil(0);
            }
        }
    }

    /// Names to read again now.
    pub(super) fn due(&mut self, limits: &ResolverLimits, now: Instant) -> Vec<Name> {
        let mut due = Vec::new();
        for watched in self.names.values_mut() {
            if now.since(watched.read_at) >= limits.watch_refresh {
                watched.read_at = now;
                watched.soil(0);
            }
            if let Some(dirty) = &mut watched.dirty {
                dirty.tries -= 1;
                due.push(watched.name.clone());
                if dirty.tries == 0 {
                    watched.dirty = None;
                }
            }
        }
        due
    }

    /// A name was read at some height.
    pub(super) fn was_read(&mut self, name: &Name, height: u64, now: Instant) {
        if let Some(watched) = self.names.get_mut(&token_id(&name.label)) {
            watched.read_at = now;
            watched.dirty.take_if(|dirty| dirty.height <= height);
        }
    }

    fn advance(&mut self, to: u64) {
        self.covered = [Some(to), self.covered[0]];
        self.names
            .values_mut()
            .for_each(|watched| watched.since = None);
    }
}

impl Watched {
    fn soil(&mut self, height: u64) {
        let height = self
            .dirty
            .as_ref()
            .map_or(height, |dirty| dirty.height.max(height));
        self.dirty = Some(Dirty {
            height,
            tries: TRIES,
        });
    }
}
