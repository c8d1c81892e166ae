//! Which names changed on the chain while their sessions live.
//!
//! Every interval one endpoint, another one each time, is asked for its newest block and for the changes since its own poll
//! before the last. Blocks are thus read by every endpoint, and again as long as they may be reorganised: an endpoint that
//! withholds a change delays it by one interval, and a change that vanishes from the chain counts as a change.
//!
//! What an endpoint says of its height decides only what that endpoint is asked next, and whether another one is asked at
//! once. Names are read again because the chain has run away from us, and an endpoint is passed over because it is far off,
//! only by the height of [`Heights`](super::heights::Heights).

use super::{abi::token_id, config::ResolverLimits, heights::ascending, rpc::Change};
use crate::{
    name::Name,
    sorted::{Map, Set},
    time::{self, Duration, Instant},
};
use alloc::vec::Vec;

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What came of the polls of each endpoint.
    polled: Vec<Polled>,
    /// Endpoints that must agree.
    need: usize,
    names: Map<[u8; 32], Watched>,
    next_poll: Option<Instant>,
    turn: usize,
    second: Second,
    /// Whose newest block was far from the others' at this poll.
    doubted: Option<usize>,
    /// Changes seen in blocks that will be read again.
    seen: Set<Change>,
    /// Polls in a row whose logs were refused.
    refused: usize,
}

/// A second endpoint that is asked within one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Second {
    #[default]
    Unneeded,
    Due,
    Asked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Polled {
    /// `None` before the first, or while nothing is watched.
    covered: Option<Covered>,
    /// When its bucket of announced changes is full again.
    announced: Instant,
}

/// Heights up to which the last poll and the one before it looked.
#[derive(Clone, Copy, Debug)]
struct Covered {
    last: u64,
    before: u64,
}

#[derive(Debug)]
struct Watched {
    name: Name,
    /// How often it was asked for.
    users: usize,
    /// Changes from this height on matter and fewer endpoints than the quorum have looked for them yet.
    since: Option<u64>,
    /// Polls that looked for them.
    looks: usize,
    dirty: Option<Dirty>,
    read_at: Instant,
}

/// To be read again at this height or above.
#[derive(Debug)]
struct Dirty {
    height: u64,
    tries: u8,
}

/// How often a change is followed up before it is taken for an invention: at once, and at each of the next polls. As long as a
/// head may be old: an endpoint may have us read at the oldest block that passes.
const TRIES: u8 = 12;
/// Above this many names the endpoint is asked for all changes of the registry.
const TOKENS_MAX: usize = 200;
/// Changes remembered, about 100 bytes each; beyond it some names are read once more than needed.
const SEEN_MAX: usize = 4096;
/// Where logs are refused, watched names are read this often instead.
const WITHOUT_LOGS: Duration = Duration::from_secs(60);

/// Beyond as many changes as there are watched names and this many more, which one endpoint announces at once, it must wait
/// for [`ANNOUNCEMENTS_EVERY`] before the next is followed up: it may be making them up, and each costs up to twelve reads.
/// What it announces meanwhile is left to the others' polls.
const ANNOUNCEMENTS_SPARE: usize = 32;
const ANNOUNCEMENTS_EVERY: Duration = Duration::from_secs(60);

/// Blocks to look through, both ends included, and for which tokens (none: for all).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) tokens: Vec<[u8; 32]>,
}

impl Watch {
    pub(super) fn new(endpoints: usize, need: usize) -> Self {
        Self {
            polled: alloc::vec![Polled::default(); endpoints],
            need,
            ..Self::default()
        }
    }

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
                looks: 0,
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
            // Whoever watches it next may know less than we do.
            self.seen.retain(|change| change.token != token);
        }
        if self.names.is_empty() {
            let mut polled = core::mem::take(&mut self.polled);
            for polled in &mut polled {
                polled.covered = None;
            }
            *self = Self {
                turn: self.turn,
                polled,
                need: self.need,
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
    pub(super) fn begin(&mut self, limits: &ResolverLimits, now: Instant) -> Option<usize> {
        if self.names.is_empty() || self.next_poll.is_none_or(|at| now < at) {
            return None;
        }
        self.next_poll = Some(now + limits.watch_interval);
        self.turn = self.turn.wrapping_add(1);
        self.second = match self.second {
            Second::Due => Second::Asked,
            Second::Unneeded | Second::Asked => {
                self.doubted = None;
                Second::Unneeded
            }
        };
        self.turn.checked_rem(self.polled.len())
    }

    /// The endpoint's newest block is far from the height that a quorum has reached: it is not asked for changes, and the
    /// next one's turn comes at once. Either that one has gone as far, or this poll is its own. Once per interval, so that
    /// endpoints that contradict each other are not asked without a pause.
    pub(super) fn doubt(&mut self, endpoint: usize, now: Instant) {
        self.doubted = Some(endpoint);
        if self.second == Second::Unneeded {
            self.second = Second::Due;
            self.next_poll = Some(now);
        }
    }

    /// Whom to blame, now that another endpoint is where a quorum is: nobody where it may be these two that are wrong.
    pub(super) fn take_doubted(&mut self) -> Option<usize> {
        self.doubted
            .take()
            .filter(|_| self.polled.len() > self.need)
    }

    /// The blocks to look through up to an endpoint's `head`, where a quorum has reached `agreed`. `None` if that is so far
    /// beyond what a quorum has looked through that every name is read again.
    pub(super) fn range(
        &mut self,
        endpoint: usize,
        head: u64,
        agreed: u64,
        limits: &ResolverLimits,
    ) -> Option<Range> {
        if agreed.saturating_sub(self.looked_to().unwrap_or(agreed)) > limits.log_range {
            for watched in self.names.values_mut() {
                watched.soil(agreed);
                watched.since = None;
            }
            self.seen.clear();
            // What lies before needs no second look: it is not looked at, but read.
            let all = Covered {
                last: agreed,
                before: agreed,
            };
            for polled in &mut self.polled {
                polled.covered = polled.covered.and(Some(all));
            }
            return None;
        }
        // One that was never polled begins where the others are.
        let own = self.polled.get(endpoint).and_then(|polled| polled.covered);
        let covered = match own {
            Some(covered) => Some(covered.before),
            None => self.covered().next(),
        };
        let covered = covered
            .unwrap_or(head)
            .min(head)
            .saturating_sub(limits.reorg_depth);
        let first = head.saturating_sub(limits.log_range);
        // A name that was read before the first block in reach is read again; that block is a read's word alone, and no
        // reason to read others.
        for watched in self.names.values_mut() {
            if watched.since.is_some_and(|since| since < first) {
                watched.since = None;
                watched.soil(0);
            }
        }
        let from = self
            .names
            .values()
            .filter_map(|watched| watched.since)
            .fold(covered, u64::min)
            .max(first);
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

    /// The height up to which as many endpoints as the quorum have looked, or as many as give logs.
    fn looked_to(&self) -> Option<u64> {
        let mut heights = self.covered();
        let nth = self.need.min(heights.len()).checked_sub(1)?;
        heights.nth_back(nth)
    }

    /// The heights up to which endpoints have looked, lowest first.
    fn covered(&self) -> alloc::vec::IntoIter<u64> {
        let last = |polled: &Polled| polled.covered.map(|covered| covered.last);
        let heights: Vec<_> = self.polled.iter().map(last).collect();
        ascending(&heights).into_iter()
    }

    /// Takes the changes that an endpoint found, and returns the names that are no longer known.
    pub(super) fn changes(
        &mut self,
        endpoint: usize,
        (from, to): (u64, u64),
        changes: Vec<Change>,
        limits: &ResolverLimits,
        now: Instant,
    ) -> Vec<Name> {
        self.refused = 0;
        let inside = |change: &Change| (from..=to).contains(&change.block.number);
        let found: Set<Change> = changes
            .into_iter()
            .filter(|change| inside(change) && self.names.contains_key(&change.token))
            .take(SEEN_MAX)
            .collect();
        let mut stale = Set::default();
        let mut news: Vec<Change> = found.difference(&self.seen).copied().collect();
        news.retain(|_| self.may_announce(endpoint, now));
        for change in &news {
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
        // Endpoints look through different blocks: what one of them did not look at is still known.
        self.seen.retain(|change| match inside(change) {
            true => found.contains(change),
            false => change.block.number.abs_diff(to) <= 2 * limits.log_range,
        });
        let room = SEEN_MAX.saturating_sub(self.seen.len());
        self.seen.extend(news.into_iter().take(room));
        self.advance(endpoint, to);
        stale.into_iter().collect()
    }

    /// Whether one more change that this endpoint announces is followed up. A single endpoint's always is: there is nobody
    /// else to announce it.
    fn may_announce(&mut self, endpoint: usize, now: Instant) -> bool {
        let at_once = self.names.len() + ANNOUNCEMENTS_SPARE;
        let burst = ANNOUNCEMENTS_EVERY * u32::try_from(at_once).unwrap_or(u32::MAX);
        let alone = self.polled.len() == 1;
        self.polled.get_mut(endpoint).is_some_and(|polled| {
            alone || time::take(&mut polled.announced, ANNOUNCEMENTS_EVERY, burst, now).is_ok()
        })
    }

    /// The endpoint does not give logs.
    pub(super) fn refused(&mut self, now: Instant) {
        self.refused += 1;
        if self.refused >= self.polled.len().max(2) {
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

    /// Names to read again: those that were found changed just now, and `again` those that the last try left so.
    pub(super) fn due(&mut self, again: bool, limits: &ResolverLimits, now: Instant) -> Vec<Name> {
        let mut due = Vec::new();
        for watched in self.names.values_mut() {
            if now.since(watched.read_at) >= limits.watch_refresh {
                watched.read_at = now;
                watched.soil(0);
            }
            if let Some(dirty) = &mut watched.dirty
                && (again || dirty.tries == TRIES)
            {
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

    fn advance(&mut self, endpoint: usize, to: u64) {
        if let Some(polled) = self.polled.get_mut(endpoint) {
            let before = polled.covered.map_or(to, |covered| covered.last);
            polled.covered = Some(Covered { last: to, before });
        }
        for watched in self.names.values_mut() {
            watched.looks += 1;
            if watched.looks >= self.need {
                watched.since = None;
            }
        }
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
