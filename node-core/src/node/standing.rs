//! What is remembered of those that peers come from: how fast they knock and ask.

use super::cell::AddressGroup;
use crate::{
    Limits, Name,
    time::{Duration, Instant},
};
use alloc::vec::Vec;

/// Whom something counts against.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A name, for what its owner was proved to do.
    Name(Name),
    /// An address group, for what came from there before anybody had proved who it is.
    Group(AddressGroup),
}

/// The window of [`Limits::stranger_requests`].
const WINDOW: Duration = Duration::from_secs(10);
/// The window of [`Limits::handshake_rate`]: twice the rate at once.
const BURST: Duration = Duration::from_secs(2);

/// Names and address groups with what is remembered of them. Whoever did nothing for a while is forgotten; a full table
/// forgets first who was quiet longest.
#[derive(Debug)]
pub(super) struct Standings {
    /// In the order of the subjects.
    known: Vec<(Subject, Standing)>,
    max: usize,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    used: Instant,
    /// When the bucket of each is full again.
    handshakes: Instant,
    requests: Instant,
}

impl Standing {
    fn is_blank(&self, now: Instant) -> bool {
        self.handshakes <= now && self.requests <= now
    }
}

impl Standings {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            known: Vec::new(),
            max: limits.standings.max(1),
        }
    }

    /// Takes one handshake from a source's bucket, or says how long to wait.
    pub(super) fn handshake(
        &mut self,
        source: AddressGroup,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / limits.handshake_rate.max(1);
        let standing = self.of(&Subject::Group(source), now);
        take(&mut standing.handshakes, interval, BURST, now)
    }

    /// The bucket of requests that a peer left when its last session ended.
    pub(super) fn requests(&self, subject: &Subject) -> Instant {
        let known = self.find(subject).ok();
        known.map_or(Instant::default(), |at| self.known[at].1.requests)
    }

    /// Remembers the bucket of requests of a peer whose session has ended, unless it is full.
    pub(super) fn set_requests(&mut self, subject: &Subject, full_at: Instant, now: Instant) {
        if full_at > now {
            let standing = self.of(subject, now);
            standing.requests = standing.requests.max(full_at);
        }
    }

    fn find(&self, subject: &Subject) -> Result<usize, usize> {
        self.known.binary_search_by(|(known, _)| known.cmp(subject))
    }

    /// The entry of a subject, made if there is none.
    fn of(&mut self, subject: &Subject, now: Instant) -> &mut Standing {
        let at = self.find(subject).unwrap_or_else(|_| {
            self.make_room(now);
            let at = self.find(subject).unwrap_or_else(|at| at);
            self.known
                .insert(at, (subject.clone(), Standing::default()));
            at
        });
        let standing = &mut self.known[at].1;
        standing.used = now;
        standing
    }

    fn make_room(&mut self, now: Instant) {
        if self.known.len() < self.max {
            return;
        }
        self.known.retain(|(_, standing)| !standing.is_blank(now));
        while self.known.len() >= self.max {
            let by_age = self.known.iter().enumerate();
            let oldest = by_age.min_by_key(|(_, (_, standing))| standing.used);
            let Some(oldest) = oldest.map(|(at, _)| at) else {
                return;
            };
            self.known.remove(oldest);
        }
    }
}

/// Takes one request of a stranger from its bucket, or says how long to wait.
pub(super) fn take_request(
    full_at: &mut Instant,
    limits: &Limits,
    now: Instant,
) -> Result<(), Duration> {
    let interval = WINDOW / limits.stranger_requests.max(1);
    take(full_at, interval, WINDOW, now)
}

/// A token bucket as one point in time: when it will be full again. One token comes back per `interval`, and a bucket
/// that needs longer than `burst` to be full is empty.
fn take(
    full_at: &mut Instant,
    interval: Duration,
    burst: Duration,
    now: Instant,
) -> Result<(), Duration> {
    let after = (*full_at).max(now) + interval;
    match after.since(now).checked_sub(burst) {
        None | Some(Duration::ZERO) => {
            *full_at = after;
            Ok(())
        }
        Some(wait) => Err(wait),
    }
}
