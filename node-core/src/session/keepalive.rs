//! Whether the peer is still there, and how fast it may make us work.

use crate::{
    Limits,
    time::{Duration, Instant},
};

/// Knows when the peer was last heard, and when to ask.
#[derive(Debug)]
pub(super) struct Keepalive {
    pub(super) last_received: Instant,
    last_ping: Option<Instant>,
    unanswered: u32,
    pub(super) round_trip: Option<Duration>,
}

pub(super) enum Check {
    Fine,
    Ping,
    Dead,
}

impl Keepalive {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_received: now,
            last_ping: None,
            unanswered: 0,
            round_trip: None,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_received = now;
        self.unanswered = 0;
    }

    pub(super) fn pinged(&mut self, now: Instant) {
        self.last_ping = Some(now);
        self.unanswered += 1;
    }

    pub(super) fn ponged(&mut self, token: u64, now: Instant) -> Option<Duration> {
        let sent = Instant::from_micros(token);
        // Only the answer to our last ping measures anything; an invented token measures nothing.
        (self.last_ping == Some(sent)).then(|| {
            let round_trip = now.since(sent);
            self.round_trip = Some(round_trip);
            round_trip
        })
    }

    /// The listening side asks; the dialling side, which may be a tab whose timers sleep, only notices silence.
    pub(super) fn deadline(&self, limits: &Limits, initiator: bool) -> Instant {
        if initiator && self.unanswered == 0 {
            return self.last_received + self.patience(limits);
        }
        self.last_ping
            .filter(|ping| *ping > self.last_received)
            .unwrap_or(self.last_received)
            + limits.keepalive
    }

    /// How long a peer may take or acknowledge nothing of what is there for it, however much it talks itself.
    pub(super) fn patience(&self, limits: &Limits) -> Duration {
        limits
            .keepalive
            .saturating_mul(limits.keepalive_misses.saturating_add(2))
    }

    pub(super) fn check(&self, now: Instant, limits: &Limits, initiator: bool) -> Check {
        if now < self.deadline(limits, initiator) {
            Check::Fine
        } else if (initiator && self.unanswered == 0) || self.unanswered >= limits.keepalive_misses
        {
            Check::Dead
        } else {
            Check::Ping
        }
    }
}

/// Frames that cost the peer no credit: as many per second, and as many at once.
pub(super) const CONTROL_PER_SECOND: u64 = 200;
pub(super) const CONTROL_BURST: u32 = 400;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u64,
    burst: u32,
    tokens: u32,
    refilled: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u64, burst: u32, now: Instant) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            refilled: now,
        }
    }

    #[must_use]
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let elapsed = u64::try_from(now.since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(self.per_second) / 1_000_000;
        if earned > 0 {
            let tokens = u64::from(self.tokens)
                .saturating_add(earned)
                .min(self.burst.into());
            self.tokens = u32::try_from(tokens).unwrap_or(self.burst);
            // What is left of a token is not lost: otherwise a peer that keeps to the rate would break it.
            let spent = earned.saturating_mul(1_000_000) / self.per_second;
            self.refilled = self.refilled + Duration::from_micros(spent);
        }
        let Some(left) = self.tokens.checked_sub(1) else {
            return false;
        };
        self.tokens = left;
        true
    }
}
