//! Whether the peer is still there, and how fast it may make us work.

use crate::{
    Limits,
    channel::{Channel, Role},
    time::{Duration, Instant},
};

/// Knows when the peer was last heard, and when to ask.
#[derive(Debug)]
pub(super) struct Keepalive {
    pub(super) last_received: Instant,
    last_ping: Option<Instant>,
    /// What answers the last ping, until something has. Nobody can say it who has not heard the ping.
    token: Option<u64>,
    /// When the peer was first asked since it was last heard.
    asked: Option<Instant>,
    /// How often it was asked because of its silence.
    missed: u32,
    pub(super) round_trip: Option<Duration>,
    /// It is silent although something was due.
    pub(super) suspected: bool,
    /// When the channel is to be renewed, if that is for us to do.
    pub(super) renew_at: Option<Instant>,
    /// It was to be renewed by now.
    pub(super) old: bool,
    /// How often it was suspected since a round trip was measured: each time it has twice as long.
    doubts: u32,
}

pub(super) enum Check {
    Fine,
    Ping,
    Dead,
}

/// How long an answer may take as long as no round trip is known.
const UNMEASURED: Duration = Duration::from_secs(5);

/// Nobody is waited for longer than that because a round trip once took so long: one end may have slept in between.
const SLOWEST: Duration = Duration::from_secs(10);

/// A peer that was suspected in vain has twice as long the next time, this often.
const DOUBTS: u32 = 4;

impl Keepalive {
    /// Over a channel that has just been made.
    pub(super) fn new(channel: &Channel, limits: &Limits, now: Instant) -> Self {
        // At ten to fourteen twelfths of the time: what began together is not renewed together.
        let (shortest, chance) = (limits.renew_after / 6 * 5, channel.transcript()[0]);
        let age = shortest + limits.renew_after / 768 * chance.into();
        Self {
            renew_at: (channel.role() == Role::Initiator).then(|| now + age),
            old: false,
            last_received: now,
            last_ping: None,
            token: None,
            asked: None,
            missed: 0,
            round_trip: None,
            suspected: false,
            doubts: 0,
        }
    }

    /// The same peer over another channel.
    pub(super) fn moved(&self, channel: &Channel, limits: &Limits, now: Instant) -> Self {
        Self {
            doubts: self.doubts,
            ..Self::new(channel, limits, now)
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_received = now;
        self.asked = None;
        self.missed = 0;
        self.suspected = false;
    }

    pub(super) fn pinged(&mut self, token: u64, now: Instant) {
        self.last_ping = Some(now);
        self.token = Some(token);
        self.asked.get_or_insert(now);
    }

    /// Whether the answer to the last ping has not come yet.
    pub(super) const fn awaits_pong(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn ponged(&mut self, token: u64, now: Instant) -> Option<Duration> {
        // Only the first answer to our last ping measures anything; an invented token measures nothing.
        let sent = self.last_ping.filter(|_| self.token == Some(token))?;
        self.token = None;
        let round_trip = now.since(sent);
        self.round_trip = Some(round_trip);
        self.doubts = 0;
        Some(round_trip)
    }

    /// How long the answer to a ping may take.
    fn answer_within(&self, limits: &Limits) -> Duration {
        let round_trip = self.round_trip.map(|time| time.saturating_mul(2));
        let within = round_trip.map_or(UNMEASURED, |time| time.max(limits.keepalive_retry));
        within.min(SLOWEST.max(limits.keepalive_retry))
    }

    /// When the peer is to be suspected, if nothing comes before: something is due of it, an answer or what it has not
    /// acknowledged since then.
    pub(super) fn suspicion(
        &self,
        unacknowledged: Option<Instant>,
        limits: &Limits,
    ) -> Option<Instant> {
        if self.suspected {
            return None;
        }
        let due = unacknowledged.map(|since| since.max(self.last_received));
        let due = [due, self.asked].into_iter().flatten().min()?;
        let round_trip = self.round_trip.unwrap_or(limits.suspicion);
        let wait = round_trip
            .saturating_mul(3)
            .min(SLOWEST)
            .max(limits.suspicion);
        Some(due + wait.saturating_mul(1 << self.doubts))
    }

    /// The peer is suspected. Whether it has yet to be asked.
    pub(super) fn suspect(&mut self) -> bool {
        self.suspected = true;
        self.doubts = (self.doubts + 1).min(DOUBTS);
        self.asked.is_none()
    }

    /// The listening side asks first. The dialling side, which may be a tab whose timers sleep, has been asked by then.
    pub(super) fn deadline(&self, limits: &Limits, initiator: bool) -> Instant {
        let retry = self.answer_within(limits);
        match self.last_ping {
            Some(ping) if self.missed > 0 => ping + retry,
            _ if initiator => self.last_received + limits.keepalive + retry,
            _ => self.last_received + limits.keepalive,
        }
    }

    /// How long a peer may take or acknowledge nothing of what is there for it, however much it talks itself.
    pub(super) fn patience(&self, limits: &Limits) -> Duration {
        limits
            .keepalive
            .saturating_mul(limits.keepalive_misses.saturating_add(2))
    }

    /// Whether the peer has given the pipe up by now: we have slept.
    pub(super) fn is_overdue(&self, now: Instant, limits: &Limits) -> bool {
        now.since(self.last_received) >= self.patience(limits)
    }

    pub(super) fn check(&mut self, now: Instant, limits: &Limits, initiator: bool) -> Check {
        if now < self.deadline(limits, initiator) {
            Check::Fine
        } else if self.missed >= limits.keepalive_misses || self.is_overdue(now, limits) {
            Check::Dead
        } else {
            self.missed += 1;
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
